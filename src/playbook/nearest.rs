//! The nearest valid name to one that is not: what "did you mean" says.

/// The name among `valid` that `written` most likely means; none if nothing is close.
///
/// Close is at most a third of the letters wrong (and always one). Case and the choice of `-`, `_`
/// and `.` count for nothing, so `point-of-no-return` finds `point_of_no_return`. Among equals the
/// first wins, so that messages are stable.
pub fn nearest<'a>(written: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(written);
    let allowed = (folded.len() / 3).max(1);
    let mut best: Option<(usize, &'a str)> = None;
    for name in valid {
        let distance = distance(&folded, &fold(name));
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name)
}

/// Letters only, in lower case; a name is cut at 64, as longer ones are no typing slips.
fn fold(text: &str) -> Vec<char> {
    text.chars().filter(|c| !matches!(c, '-' | '_' | '.' | ' ')).flat_map(char::to_lowercase).take(64).collect()
}

/// Damerau–Levenshtein distance (optimal string alignment): insert, delete, replace, swap neighbours.
fn distance(left: &[char], right: &[char]) -> usize {
    let width = right.len() + 1;
    let mut table = vec![0usize; (left.len() + 1) * width];
    for row in 0..=left.len() {
        for column in 0..=right.len() {
            let value = if row == 0 || column == 0 {
                row + column
            } else {
                let same = left[row - 1] == right[column - 1];
                let mut least = (table[(row - 1) * width + column] + 1)
                    .min(table[row * width + column - 1] + 1)
                    .min(table[(row - 1) * width + column - 1] + usize::from(!same));
                if row > 1 && column > 1 && left[row - 1] == right[column - 2] && left[row - 2] == right[column - 1] {
                    least = least.min(table[(row - 2) * width + column - 2] + 1);
                }
                least
            };
            table[row * width + column] = value;
        }
    }
    table[left.len() * width + right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        let fields = ["playbook", "about", "deadline", "max_write_gap", "stores", "stages"];
        assert_eq!(nearest("deadlin", fields), Some("deadline"));
        assert_eq!(nearest("staegs", fields), Some("stages"));
        assert_eq!(nearest("max-write-gap", fields), Some("max_write_gap"));
        assert_eq!(nearest("Stores", fields), Some("stores"));
        assert_eq!(nearest("mysql.snapshto", ["mysql.verify", "mysql.snapshot"]), Some("mysql.snapshot"));
    }

    #[test]
    fn says_nothing_rather_than_guess() {
        assert_eq!(nearest("colour", ["deadline", "stores"]), None);
        assert_eq!(nearest("", ["deadline"]), None);
        assert_eq!(nearest("x", []), None);
    }

    #[test]
    fn counts_edits() {
        let of = |left: &str, right: &str| distance(&left.chars().collect::<Vec<_>>(), &right.chars().collect::<Vec<_>>());
        assert_eq!(of("", "abc"), 3);
        assert_eq!(of("kitten", "sitting"), 3);
        assert_eq!(of("ab", "ba"), 1);
        assert_eq!(of("same", "same"), 0);
    }
}
