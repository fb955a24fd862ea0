//! Hides passwords that were written down by mistake, so that no error message repeats them.
//!
//! Works on the text and not on the parsed file, as it must also hold where parsing failed. It
//! rather hides too much than too little: the rest of a line, the lines indented below it. Byte
//! offsets stay as they are, so places in the masked text are places in the file.

/// A copy of the text in which written-down passwords are stars, byte for byte: the value after
/// `password:` unless it is a `${…}` reference, and what stands between `:` and `@` in a url.
pub(crate) fn mask(text: &str) -> String {
    let mut masked = text.as_bytes().to_vec();
    let mut hidden_below: Option<usize> = None;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches([' ', '-']).len();
        // A block or continued password: everything indented deeper belongs to it.
        if hidden_below.is_some_and(|outer| indent > outer || line.trim().is_empty()) {
            star(&mut masked[start..start + line.len()]);
        } else {
            hidden_below = None;
            if mask_passwords(line, &mut masked[start..start + line.len()]) {
                hidden_below = Some(indent);
            }
            mask_urls(line, &mut masked[start..start + line.len()]);
        }
        start += line.len();
    }
    // Only whole characters were overwritten with ASCII, so this is still UTF-8.
    String::from_utf8(masked).unwrap_or_default()
}

fn star(bytes: &mut [u8]) {
    for byte in bytes {
        if *byte != b'\n' && *byte != b'\r' {
            *byte = b'*';
        }
    }
}

/// How the names of fields that hold secrets begin, misspelt ones included.
const SECRET_FIELDS: [&str; 3] = ["passw", "pwd", "secret"];

/// Stars what follows `password:`; true if the value may go on in the lines below.
fn mask_passwords(line: &str, masked: &mut [u8]) -> bool {
    let lower = line.to_ascii_lowercase();
    let mut from = 0;
    while let Some(found) = SECRET_FIELDS.iter().filter_map(|name| lower[from..].find(name)).min() {
        let rest = lower[from + found..].trim_start_matches(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-'));
        from = line.len() - rest.len();
        let rest = line[from..].trim_start_matches(['"', '\'', ' ', '\t']);
        let Some(value) = rest.strip_prefix([':', '=']) else { continue };
        let value = value.trim_start_matches([' ', '\t']);
        let inner = value.trim_start_matches(['"', '\'']);
        let closing = ['"', '\'', ' ', ',', '}', '\r', '\n'];
        if inner.starts_with("${") && inner.find('}').is_some_and(|end| inner[end + 1..].trim_start_matches(closing).is_empty()) {
            continue;
        }
        let begin = line.len() - value.len();
        let end = line.trim_end().len().max(begin);
        star(&mut masked[begin..end]);
        return !value.starts_with("${");
    }
    false
}

/// Stars `secret` in `://user:secret@host`.
fn mask_urls(line: &str, masked: &mut [u8]) {
    let mut from = 0;
    while let Some(found) = line[from..].find("://") {
        let begin = from + found + 3;
        let mut end = line[begin..].find([' ', '"', '\'', '\n']).map_or(line.len(), |at| begin + at);
        if !line[begin..end].contains('@') {
            // A blank or quote in the secret itself.
            end = line[begin..].find('@').map_or(end, |at| begin + at + 1);
        }
        from = end;
        let authority = &line[begin..end];
        if let (Some(at), Some(colon)) = (authority.rfind('@'), colon_outside_references(authority))
            && colon < at
        {
            star(&mut masked[begin + colon + 1..begin + at]);
        }
    }
}

/// Where the first `:` is that stands in no `${…}`.
fn colon_outside_references(text: &str) -> Option<usize> {
    let mut inside = false;
    for (offset, c) in text.char_indices() {
        match c {
            '$' if text[offset..].starts_with("${") => inside = true,
            '}' => inside = false,
            ':' if !inside => return Some(offset),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_written_passwords_and_keeps_offsets() {
        for (text, shown) in [
            ("password: hunter2\nx: 1\n", "password: *******\nx: 1\n"),
            ("  password: \"hunter2\" # no\n", "  password: **************\n"),
            ("{ url: u, password: 'é' }\n", "{ url: u, password: ******\n"),
            ("password: |\n  hunter2\n\nnext: 1\n", "password: *\n*********\n\nnext: 1\n"),
            ("url: mysql://me:hunter2@db/\n", "url: mysql://me:*******@db/\n"),
            ("url: mysql://me:a@b:c@db/\n", "url: mysql://me:*****@db/\n"),
            ("url: mysql://${env:ME}:hunter2@db/\n", "url: mysql://${env:ME}:*******@db/\n"),
            ("url: mysql://me:a, b\"c@db/\n", "url: mysql://me:******@db/\n"),
            ("passwort: hunter2\n", "passwort: *******\n"),
            ("\"client_secret\": hunter2\n", "\"client_secret\": *******\n"),
        ] {
            assert_eq!(mask(text), shown);
            assert_eq!(mask(text).len(), text.len());
        }
    }

    #[test]
    fn leaves_references_and_the_rest_readable() {
        for text in [
            "password: ${env:SECRET}\n",
            "password: \"${file:/run/secrets/source}\"\n",
            "{ url: \"mysql://me@${env:HOST}:3306/\", password: \"${env:P}\" }\n",
            "about: the password lies elsewhere\n",
        ] {
            assert_eq!(mask(text), text);
        }
    }
}
