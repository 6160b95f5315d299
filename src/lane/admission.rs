//! What a request must have before it stands in line: a place in the queue, and its
//! body, as far as that is read before.

use ::http::request;
use hyper::body::{Body, Incoming};
use tokio::time::Instant;

use super::Lane;
use super::account::Account;
use super::queue::Place;
use crate::config::WhenFull;
use crate::http::body::{Bounds, Upload, UploadError};
use crate::outcome::Outcome;
use crate::pacing::Charge;
use crate::timer::Timer;
use crate::upstream::head_bytes;

impl Lane {
    /// Reads a body as far as it is read before the queue, after its request has
    /// taken its place.
    pub(super) async fn take_in(
        &self,
        head: &request::Parts,
        body: Incoming,
        account: &mut Account,
        timer: &mut Timer,
    ) -> Result<(Upload, Place), Outcome> {
        let shared = &self.0.shared;
        let settings = shared.settings();
        let bounds = Bounds {
            buffer: settings.buffer_body,
            max: settings.max_body,
            stall: shared.caller_stall,
            version: head.version,
        };
        drop(settings);
        let announced = body.size_hint();
        if announced.lower() > bounds.max {
            return Err(Outcome::TooLarge);
        }
        let head = head_bytes(&head.uri, &head.headers);
        let held = match announced.exact() {
            Some(exact) if exact > bounds.buffer as u64 => 0,
            Some(exact) => exact as usize,
            None => bounds.buffer,
        };
        let deadline = account.deadline();
        let mut place = match self.enter(account, head + held)? {
            Some(place) => place,
            None => {
                let charge = account.charge();
                let place = self.place(charge, head + held, deadline, timer).await?;
                account.admit();
                place
            }
        };
        let upload = tokio::select! {
            upload = Upload::read(body, bounds) => upload.map_err(|error| match error {
                UploadError::TooLarge => Outcome::TooLarge,
                UploadError::Broken(_) | UploadError::Reset | UploadError::Stalled => {
                    error.fault().map_or(Outcome::Abandoned, Outcome::BadRequest)
                }
            })?,
            outcome = shared.too_late(deadline, timer) => return Err(outcome),
        };
        place.shrink_to(head + upload.buffered());
        Ok((upload, place))
    }

    /// Takes a place in the queue for `bytes`; `None` if one has to be waited for.
    pub(super) fn enter(
        &self,
        account: &mut Account,
        bytes: usize,
    ) -> Result<Option<Place>, Outcome> {
        let shared = &self.0.shared;
        let settings = shared.settings();
        if shared.wait(account.charge()) > settings.longest_wait() {
            return Err(Outcome::WaitTooLong);
        }
        let place = shared
            .room
            .try_enter(account.charge(), bytes, &self.0.cells);
        match (&place, settings.queue.when_full) {
            (Some(_), _) => account.admit(),
            (None, WhenFull::Wait) => {}
            (None, WhenFull::Reject) => return Err(Outcome::QueueFull),
        }
        Ok(place)
    }

    /// A place, as soon as there is one.
    pub(super) async fn place(
        &self,
        charge: &Charge,
        bytes: usize,
        deadline: Instant,
        timer: &mut Timer,
    ) -> Result<Place, Outcome> {
        let shared = &self.0.shared;
        tokio::select! {
            place = shared.room.enter(charge, bytes, &self.0.cells) => Ok(place),
            outcome = shared.too_late(deadline, timer) => Err(match outcome {
                Outcome::Expired => Outcome::QueueFull,
                other => other,
            }),
        }
    }
}
