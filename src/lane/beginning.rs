//! The beginning of a response body, read to know what the response means.
//!
//! A refusal may be told by its text alone. What was read of the body for that
//! goes to the caller before the rest, as it came: the same bytes, and the same
//! end if that was reached, trailers and breaks included.

use std::time::Duration;

use ::http::HeaderMap;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::time;

use crate::dialect::BODY_PREFIX;
use crate::upstream::{Inbound, InboundError};

/// What does not come within this time is not looked into.
pub(super) const PATIENCE: Duration = Duration::from_millis(250);

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    data: Bytes,
    end: Option<End>,
}

/// How the body ended, if it did.
#[derive(Debug)]
enum End {
    Whole(Option<HeaderMap>),
    Broken(InboundError),
}

/// What goes to the caller before the rest.
#[derive(Debug)]
pub(super) enum Piece {
    Frame(Frame<Bytes>),
    Broken(InboundError),
    /// Nothing is left here, and nothing follows either.
    End,
    /// Nothing is left here; the rest follows.
    Rest,
}

impl Beginning {
    /// Reads the first [`BODY_PREFIX`] bytes of `body`, or all there is, or what
    /// comes in time.
    pub(super) async fn read(body: &mut Inbound) -> Self {
        let mut read = BytesMut::new();
        let mut end = None;
        let reading = async {
            while read.len() < BODY_PREFIX && end.is_none() {
                match body.frame().await {
                    None => end = Some(End::Whole(None)),
                    Some(Err(error)) => end = Some(End::Broken(error)),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => read.extend_from_slice(&data),
                        // Nothing comes after trailers.
                        Err(frame) => end = Some(End::Whole(frame.into_trailers().ok())),
                    },
                }
            }
        };
        // Whatever has come by then is what can be looked at.
        let _ = time::timeout(PATIENCE, reading).await;
        let data = read.freeze();
        Self { data, end }
    }

    /// The bytes that were read.
    pub(super) fn data(&self) -> &Bytes {
        &self.data
    }

    /// Whether the body broke off.
    pub(super) fn is_broken(&self) -> bool {
        matches!(self.end, Some(End::Broken(_)))
    }

    /// Whether the body says the same without it.
    pub(super) fn is_nothing(&self) -> bool {
        self.data.is_empty() && matches!(self.end, None | Some(End::Whole(None)))
    }

    /// Takes the next piece.
    pub(super) fn next(&mut self) -> Piece {
        if !self.data.is_empty() {
            return Piece::Frame(Frame::data(std::mem::take(&mut self.data)));
        }
        match &mut self.end {
            None => Piece::Rest,
            Some(End::Whole(trailers)) => match trailers.take() {
                Some(trailers) => Piece::Frame(Frame::trailers(trailers)),
                None => Piece::End,
            },
            Some(End::Broken(_)) => match self.end.take() {
                Some(End::Broken(error)) => Piece::Broken(error),
                _ => Piece::Rest,
            },
        }
    }
}
