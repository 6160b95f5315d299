//! Bodies with a content coding (RFC 9110, section 8.4): as far as their
//! beginning can be read.
//!
//! gzip and deflate are undone, which is what servers use that compress for
//! anybody; a body in another coding, or in several, is not looked into.

use std::borrow::Cow;
use std::io::Read;

use ::http::HeaderMap;
use ::http::header::CONTENT_ENCODING;
use flate2::read::{DeflateDecoder, GzDecoder, ZlibDecoder};

/// A coding that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// The coding of the body that follows `headers`; `None` if it cannot be
    /// undone.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(CONTENT_ENCODING).iter();
        let Some(field) = fields.next() else {
            return Some(Self::Identity);
        };
        if fields.next().is_some() {
            return None;
        }
        let name = field.as_bytes().trim_ascii().to_ascii_lowercase();
        match name.as_slice() {
            b"identity" => Some(Self::Identity),
            b"gzip" | b"x-gzip" => Some(Self::Gzip),
            b"deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// The first `most` bytes, at most, of the body of which `coded` is the
    /// beginning; what comes before damage counts.
    pub(super) fn undo(self, coded: &[u8], most: usize) -> Cow<'_, [u8]> {
        match self {
            Self::Identity => Cow::Borrowed(coded.get(..most).unwrap_or(coded)),
            Self::Gzip => Cow::Owned(beginning(GzDecoder::new(coded), most)),
            Self::Deflate if is_zlib(coded) => Cow::Owned(beginning(ZlibDecoder::new(coded), most)),
            Self::Deflate => Cow::Owned(beginning(DeflateDecoder::new(coded), most)),
        }
    }
}

fn beginning(from: impl Read, most: usize) -> Vec<u8> {
    let mut read = Vec::new();
    // An error says that no more can be read, as when the rest is missing.
    let _ = from.take(most as u64).read_to_end(&mut read);
    read
}

/// Whether it begins as RFC 1950 says. Some send what is meant to be inside of
/// that alone.
fn is_zlib(coded: &[u8]) -> bool {
    let Some(&[first, second]) = coded.first_chunk() else {
        return true;
    };
    first & 0x0F == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;
    use crate::fuzz;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut to = GzEncoder::new(Vec::new(), Compression::best());
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut to = ZlibEncoder::new(Vec::new(), Compression::best());
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut to = DeflateEncoder::new(Vec::new(), Compression::best());
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    #[test]
    fn every_coding_is_undone_as_far_as_it_can_be() {
        let text = b"{\"message\": \"API rate limit exceeded\"}";
        for (coding, coded) in [
            (Coding::Identity, text.to_vec()),
            (Coding::Gzip, gzip(text)),
            (Coding::Deflate, zlib(text)),
            (Coding::Deflate, deflate(text)),
        ] {
            assert_eq!(&*coding.undo(&coded, 1000), text, "{coding:?}");
            assert_eq!(&*coding.undo(&coded, 10), &text[..10], "{coding:?}");
            let cut = coding.undo(&coded[..coded.len() - 12], 1000).into_owned();
            assert!(cut.len() > 10 && text.starts_with(&cut), "{coding:?}");
        }
    }

    #[test]
    fn what_unpacks_to_more_is_cut_off() {
        let bomb = gzip(&vec![b'a'; 4 << 20]);
        assert!(bomb.len() < 16 << 10);
        assert_eq!(Coding::Gzip.undo(&bomb, 16 << 10).len(), 16 << 10);
    }

    #[test]
    fn a_coding_is_known_by_its_name_alone() {
        let of = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            Coding::of(&headers)
        };
        assert_eq!(of(&[]), Some(Coding::Identity));
        assert_eq!(of(&["identity"]), Some(Coding::Identity));
        assert_eq!(of(&[" GZip"]), Some(Coding::Gzip));
        assert_eq!(of(&["x-gzip"]), Some(Coding::Gzip));
        assert_eq!(of(&["deflate"]), Some(Coding::Deflate));
        assert_eq!(of(&["br"]), None);
        assert_eq!(of(&["gzip, br"]), None);
        assert_eq!(of(&["gzip", "gzip"]), None);
    }

    #[test]
    fn fuzz_coded_bodies() {
        let text = b"{\"errors\": [{\"message\": \"you have reached the rate limit\"}]}";
        let bodies = [gzip(text), zlib(text), deflate(text), text.to_vec()];
        fuzz::run(2_000, |random| {
            let mut body = bodies[random.below(bodies.len())].clone();
            for _ in 0..random.below(3) {
                random.mutate(&mut body);
            }
            let coding = random.pick(&[Coding::Gzip, Coding::Deflate, Coding::Identity]);
            let most = random.below(200);
            assert!(coding.undo(&body, most).len() <= most);
        });
    }
}
