//! Response heads of an HTTP/1.1 upstream: which cannot be passed on, because
//! somebody behind us might read them in another way than we do.
//!
//! hyper refuses what it cannot frame; this refuses what it frames by itself.

use ::http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRANSFER_ENCODING};
use ::http::{Response, StatusCode};

use crate::http::grammar::members;
use crate::outcome::Break;

/// Leaves at most one `Content-Length` in the head.
///
/// # Errors
///
/// The length of the body has more than one meaning, or a coding is not ours to
/// undo.
pub(crate) fn check<B>(response: &mut Response<B>) -> Result<(), Break> {
    let status = response.status();
    let headers = response.headers_mut();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let coding = codings.next();
    if codings.next().is_some() {
        return Err(Break::TransferCoding);
    }
    let has_length = headers.contains_key(CONTENT_LENGTH);
    if let Some(coding) = coding {
        // RFC 9112, section 6.3: "might indicate an attempt to perform request
        // smuggling or response splitting and ought to be handled as an error".
        if has_length {
            return Err(Break::Malformed);
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Break::TransferCoding);
        }
    }
    if has_length {
        let length = length(headers).ok_or(Break::Malformed)?;
        if status == StatusCode::NO_CONTENT {
            // RFC 9110, section 8.6: there must be none.
            headers.remove(CONTENT_LENGTH);
        } else if headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some()
            || headers.get(CONTENT_LENGTH) != Some(&length)
        {
            headers.insert(CONTENT_LENGTH, length);
        }
    }
    Ok(())
}

/// The one length that all fields and list members agree on (RFC 9110, section
/// 8.6).
fn length(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut found = Length::default();
    for value in headers.get_all(CONTENT_LENGTH) {
        found.add(value.as_bytes()).ok()?;
    }
    HeaderValue::from_bytes(found.0?).ok()
}

/// The length that one `Content-Length` after the other says.
#[derive(Debug, Default)]
pub(crate) struct Length<'a>(Option<&'a [u8]>);

impl<'a> Length<'a> {
    /// One more field.
    ///
    /// # Errors
    ///
    /// It is no length, or another one than those before.
    pub(crate) fn add(&mut self, value: &'a [u8]) -> Result<(), Break> {
        for one in members(value) {
            let is_number = !one.is_empty() && one.iter().all(u8::is_ascii_digit);
            if !is_number || self.0.is_some_and(|other| other != one) {
                return Err(Break::Malformed);
            }
            self.0 = Some(one);
        }
        Ok(())
    }

    /// In bytes; `None` where no field said one.
    ///
    /// # Errors
    ///
    /// It is more than anything can be long.
    pub(crate) fn get(&self) -> Result<Option<u64>, Break> {
        let Some(digits) = self.0 else {
            return Ok(None);
        };
        let length = digits.iter().try_fold(0u64, |sum, digit| {
            sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
        });
        length.map(Some).ok_or(Break::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(status: u16, fields: &[(&'static str, &'static str)]) -> Result<Vec<String>, Break> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in fields {
            let value = HeaderValue::from_static(value);
            response.headers_mut().append(*name, value);
        }
        check(&mut response)?;
        let left = response.headers().get_all(CONTENT_LENGTH).iter();
        Ok(left
            .map(|value| value.to_str().unwrap().to_owned())
            .collect())
    }

    #[test]
    fn lengths_that_agree_become_one_and_others_are_refused() {
        let length = |value| ("content-length", value);
        assert_eq!(checked(200, &[length("5")]).unwrap(), ["5"]);
        assert_eq!(checked(200, &[length("5"), length("5")]).unwrap(), ["5"]);
        assert_eq!(checked(304, &[length("5, 5")]).unwrap(), ["5"]);
        assert_eq!(checked(204, &[length("5")]).unwrap(), [""; 0]);
        for wrong in ["5, 6", "+5", "", "5,", "0x5"] {
            assert_eq!(
                checked(304, &[length(wrong)]),
                Err(Break::Malformed),
                "{wrong}"
            );
        }
        let differ = [length("5"), length("05")];
        assert_eq!(checked(304, &differ), Err(Break::Malformed));
    }

    #[test]
    fn codings_but_chunked_and_two_framings_are_refused() {
        let coding = |value| ("transfer-encoding", value);
        assert_eq!(checked(200, &[coding("Chunked")]).unwrap(), [""; 0]);
        for wrong in ["gzip, chunked", "gzip", "identity", "chunked, chunked", ""] {
            let refused = checked(200, &[coding(wrong)]);
            assert_eq!(refused, Err(Break::TransferCoding), "{wrong}");
        }
        let twice = [coding("chunked"), coding("chunked")];
        assert_eq!(checked(200, &twice), Err(Break::TransferCoding));
        let both = [coding("chunked"), ("content-length", "5")];
        assert_eq!(checked(200, &both), Err(Break::Malformed));
    }
}
