//! The bytes of which heads and chunks are made.

/// `token` of RFC 9110, section 5.6.2.
pub(crate) const fn is_token(byte: u8) -> bool {
    TOKEN[byte as usize]
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = matches!(
            byte,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
            | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        byte += 1;
    }
    table
};

/// Whether `byte` may stand in a field value (RFC 9110, section 5.5).
pub(crate) const fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether all of `bytes` may stand in a field value. Without a branch per
/// byte, so that the compiler takes many at once.
pub(crate) fn all_text(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |good, byte| good & is_text(*byte))
}

/// The members of a list (RFC 9110, section 5.6.1), empty ones too, without the
/// space around them.
pub(crate) fn members(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}
