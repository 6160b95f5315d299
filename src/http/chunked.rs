//! Bodies in chunks (RFC 9112, section 7.1), byte by byte where they are
//! framing and in one step where they are data.
//!
//! Nothing here is kept for later: what an extension says is passed by, as the
//! standard asks of those that do not know it.

use super::grammar::{is_text, is_token};
use crate::outcome::Fault;

/// The longest body, and the longest chunk: what fits a signed number of 64 bits,
/// as with everybody else. No caller lives to see its end.
pub(crate) const LONGEST_BODY: u64 = i64::MAX as u64;

/// Most digits of a chunk's size, leading zeros included.
const MAX_DIGITS: u8 = 16;

/// Most bytes of the extensions of one body: they are never of use to us, and
/// unbounded ones were a way to keep a server busy with nothing.
const MAX_EXTENSIONS: usize = 8 << 10;

/// Most bytes of trailer fields; hyper takes 16 KiB.
const MAX_TRAILERS: usize = 8 << 10;

/// Names that a trailer field must not have, since somebody might believe it
/// (RFC 9110, section 6.5.1).
const FORBIDDEN: [&[u8]; 4] = [b"content-length", b"host", b"trailer", b"transfer-encoding"];

/// As long as the longest of those, and one more.
const NAME_ROOM: usize = 18;

/// What is allowed of a head, or of the trailer fields of a body.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Most bytes.
    pub(crate) bytes: usize,
    /// Most fields.
    pub(crate) fields: usize,
}

/// What comes next of a body in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Bytes that are none of the content.
    pub(crate) framing: usize,
    /// Bytes of content after those.
    pub(crate) data: usize,
    /// Whether the body ends there.
    pub(crate) end: bool,
}

/// A body in chunks under way.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    state: State,
    /// Whether what can only be misread by others is let pass.
    lenient: bool,
    /// Digits of the size so far, and what they say.
    digits: u8,
    size: u64,
    extensions: usize,
    trailers: usize,
    fields: usize,
    /// The start of a trailer field's name, and its length.
    name: [u8; NAME_ROOM],
    name_length: usize,
}

/// In the order of the grammar.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    /// After space that only an extension may follow.
    Space,
    /// After a semicolon.
    Extension,
    ExtensionName,
    /// After space that only `=` or another extension may follow.
    NameSpace,
    /// After an equals sign.
    Value,
    Token,
    Quoted,
    Escape,
    /// After a quoted value.
    ValueEnd,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer field, or of the last line.
    Trailer,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
}

impl Chunks {
    /// Of a response, which nobody reads after us in these chunks: space after a
    /// size, extensions of whatever form, and trailer fields that are not to be
    /// believed are passed by, as by hyper and curl.
    pub(crate) fn lenient() -> Self {
        Self {
            lenient: true,
            ..Self::default()
        }
    }

    /// Reads on in `bytes`: how many belong to the body, and whether it ends
    /// there.
    ///
    /// # Errors
    ///
    /// What is malformed, after how many bytes.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        bounds: &Bounds,
    ) -> Result<(usize, bool), (usize, Fault)> {
        let mut at = 0;
        while at < bytes.len() {
            let piece = self.piece(&bytes[at..], bounds);
            let piece = piece.map_err(|(read, fault)| (at + read, fault))?;
            at += piece.framing + piece.data;
            if piece.end {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Reads on in `bytes` up to the end of the first data in them.
    ///
    /// # Errors
    ///
    /// What is malformed, after how many bytes.
    pub(crate) fn piece(&mut self, bytes: &[u8], bounds: &Bounds) -> Result<Piece, (usize, Fault)> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.state == State::Data {
                let left = bytes.len() - at;
                let data = usize::try_from(self.size).map_or(left, |size| size.min(left));
                self.size -= data as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                return Ok(Piece {
                    framing: at,
                    data,
                    end: false,
                });
            }
            if self.state == State::LastLf && *byte == b'\n' {
                return Ok(Piece {
                    framing: at + 1,
                    data: 0,
                    end: true,
                });
            }
            match self.step(*byte, bounds) {
                Ok(state) => self.state = state,
                Err(fault) => return Err((at, fault)),
            }
        }
        Ok(Piece {
            framing: bytes.len(),
            data: 0,
            end: false,
        })
    }

    fn step(&mut self, byte: u8, bounds: &Bounds) -> Result<State, Fault> {
        match self.state {
            State::Size => self.size(byte),
            State::SizeLf | State::DataCr | State::DataLf => self.line_end(byte),
            State::Trailer
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerLf
            | State::LastLf => self.trailer(byte, bounds),
            _ => {
                self.extensions += 1;
                match self.extensions > MAX_EXTENSIONS {
                    true => Err(Fault::Chunk),
                    false => self.extension(byte),
                }
            }
        }
    }

    fn size(&mut self, byte: u8) -> Result<State, Fault> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if self.digits == 0 => return Err(Fault::Chunk),
            b'\r' => return Ok(State::SizeLf),
            b';' => return Ok(State::Extension),
            b' ' | b'\t' => return Ok(State::Space),
            _ => return Err(Fault::Chunk),
        };
        if self.digits == MAX_DIGITS {
            return Err(Fault::Chunk);
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(digit);
        match self.size <= LONGEST_BODY {
            true => Ok(State::Size),
            false => Err(Fault::Chunk),
        }
    }

    /// `chunk-ext`, with the space that RFC 9112, section 7.1.1, asks to pass by
    /// around `;` and `=`, and nowhere else.
    fn extension(&self, byte: u8) -> Result<State, Fault> {
        let space = matches!(byte, b' ' | b'\t');
        Ok(match (self.state, byte) {
            (_, b'\r') if self.lenient => State::SizeLf,
            (State::Space, b';') if self.lenient => State::Extension,
            (State::Extension, _) if self.lenient && is_text(byte) => State::Extension,
            (State::Space | State::Extension | State::NameSpace | State::Value, _) if space => {
                self.state
            }
            (State::Space | State::NameSpace, b';') => State::Extension,
            (State::NameSpace | State::ExtensionName, b'=') => State::Value,
            (State::Extension | State::ExtensionName, _) if is_token(byte) => State::ExtensionName,
            (State::ExtensionName, _) if space => State::NameSpace,
            (State::Value, b'"') => State::Quoted,
            (State::Value | State::Token, _) if is_token(byte) => State::Token,
            (State::Token | State::ValueEnd, _) if space => State::Space,
            (State::Quoted, b'"') => State::ValueEnd,
            (State::Quoted, b'\\') => State::Escape,
            (State::Quoted | State::Escape, _) if is_text(byte) => State::Quoted,
            (State::ExtensionName | State::Token | State::ValueEnd, b';') => State::Extension,
            (State::ExtensionName | State::Token | State::ValueEnd, b'\r') => State::SizeLf,
            _ => return Err(Fault::Chunk),
        })
    }

    /// CRLF after a size and after data; a bare LF ends neither.
    fn line_end(&mut self, byte: u8) -> Result<State, Fault> {
        match (self.state, byte) {
            (State::SizeLf, b'\n') => {
                self.digits = 0;
                Ok(match self.size {
                    0 => State::Trailer,
                    _ => State::Data,
                })
            }
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size),
            _ => Err(Fault::Chunk),
        }
    }

    /// Trailer fields, by the rules of header fields.
    fn trailer(&mut self, byte: u8, bounds: &Bounds) -> Result<State, Fault> {
        self.trailers += 1;
        let most = match self.lenient {
            true => bounds.bytes,
            false => MAX_TRAILERS.min(bounds.bytes),
        };
        if self.trailers > most {
            return Err(Fault::HeadTooLarge);
        }
        match (self.state, byte) {
            (State::Trailer, b'\r') => Ok(State::LastLf),
            (State::Trailer, _) if is_token(byte) => {
                self.fields += 1;
                if self.fields > bounds.fields {
                    return Err(Fault::HeadTooLarge);
                }
                self.name_length = 0;
                self.remember(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, _) if is_token(byte) => {
                self.remember(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') if !self.lenient && self.is_forbidden() => Err(Fault::Chunk),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_text(byte) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::Trailer),
            _ => Err(Fault::Chunk),
        }
    }

    fn remember(&mut self, byte: u8) {
        if let Some(room) = self.name.get_mut(self.name_length) {
            *room = byte;
            self.name_length += 1;
        }
    }

    fn is_forbidden(&self) -> bool {
        let name = &self.name[..self.name_length];
        FORBIDDEN
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    }
}
