//! A strict reader of HTTP/1.1 requests that has all of them at hand: slow,
//! simple, and written without a look at the program's own.

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
}

impl Message {
    /// The request at the start of `bytes` and its length; `None` if there is no
    /// whole one, or not a good one.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut at = 0;
        let mut line = || {
            let rest = bytes.get(at..)?;
            let end = rest.windows(2).position(|two| two == b"\r\n")?;
            at += end + 2;
            let line = &rest[..end];
            let control = |byte: &u8| (*byte < 32 && *byte != 9) || *byte == 127;
            (!line.iter().any(control)).then_some(line)
        };
        let mut first = line()?;
        for _ in 0..4 {
            // Empty lines before a request are passed by.
            if first.is_empty() {
                first = line()?;
            }
        }
        let first = std::str::from_utf8(first).ok()?;
        let parts: Vec<&str> = first.split(' ').collect();
        let [method, target, version] = parts[..] else {
            return None;
        };
        let good = matches!(version, "HTTP/1.1" | "HTTP/1.0") && first.is_ascii();
        if !good || !is_name(method.as_bytes()) || target.is_empty() {
            return None;
        }
        let mut fields = Vec::new();
        loop {
            match line()? {
                [] => break,
                field => fields.push(read_field(field)?),
            }
        }
        let start = at;
        let mut message = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields,
            body: Vec::new(),
        };
        let length = message.read_body(&bytes[start..])?;
        Some((message, start + length))
    }

    /// The values of the fields of that name.
    pub(super) fn all(&self, name: &str) -> Vec<&[u8]> {
        let named = self.fields.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| &value[..]).collect()
    }

    fn read_body(&mut self, bytes: &[u8]) -> Option<usize> {
        let (lengths, codings) = (self.all("content-length"), self.all("transfer-encoding"));
        match (&lengths[..], &codings[..]) {
            ([], []) => Some(0),
            ([length], []) => {
                let good = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
                let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
                self.body = bytes.get(..length).filter(|_| good)?.to_vec();
                Some(length)
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => self.read_chunks(bytes),
            _ => None,
        }
    }

    fn read_chunks(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let line = rest[..end].strip_suffix(b"\r")?;
            let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
            let digits = digits.count();
            let text = std::str::from_utf8(&line[..digits]).ok()?;
            let size = usize::from_str_radix(text, 16).ok()?;
            at += end + 1;
            if size == 0 {
                break;
            }
            self.body
                .extend_from_slice(bytes.get(at..at.checked_add(size)?)?);
            at += size;
            if bytes.get(at..at + 2)? != b"\r\n" {
                return None;
            }
            at += 2;
        }
        loop {
            let rest = &bytes[at..];
            let end = rest.windows(2).position(|two| two == b"\r\n")?;
            at += end + 2;
            match end {
                0 => return Some(at),
                _ => read_field(&rest[..end])?,
            };
        }
    }
}

fn read_field(line: &[u8]) -> Option<(String, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = &line[..colon];
    if !is_name(name) {
        return None;
    }
    let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
    Some((name, line[colon + 1..].trim_ascii().to_vec()))
}

fn is_name(bytes: &[u8]) -> bool {
    let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(good)
}
