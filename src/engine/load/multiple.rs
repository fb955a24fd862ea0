//! `3x`: how many times production's own rate.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The least and the most that can be asked for.
const LIMITS: (f64, f64) = (0.1, 20.0);

/// How many times the real rate, from 0.1 to 20.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct Multiple(f64);

/// A text that is no multiple.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no load: {reason}; write `3x` for three times production's own rate, from `0.1x` to `20x`")]
pub struct MultipleError {
    /// The text as written.
    pub text: String,
    /// Why it is none.
    pub reason: &'static str,
}

impl Multiple {
    /// The number.
    #[must_use]
    pub fn factor(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Multiple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x", self.0)
    }
}

impl FromStr for Multiple {
    type Err = MultipleError;

    fn from_str(text: &str) -> Result<Multiple, MultipleError> {
        let error = |reason| MultipleError { text: text.to_owned(), reason };
        let number = text.trim().strip_suffix(['x', 'X']).ok_or_else(|| error("it does not end with `x`"))?;
        if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(error("the number can't be read"));
        }
        match number.parse::<f64>() {
            Ok(factor) if (LIMITS.0..=LIMITS.1).contains(&factor) => Ok(Multiple(factor)),
            Ok(_) => Err(error("it is out of range")),
            Err(_) => Err(error("the number can't be read")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints_and_refuses_the_rest() {
        for (text, factor) in [("1x", 1.0), ("3X", 3.0), (" 0.1x", 0.1), ("2.5x", 2.5), ("20x", 20.0)] {
            let multiple: Multiple = text.parse().unwrap();
            assert!((multiple.factor() - factor).abs() < 1e-9, "{text}");
            assert_eq!(multiple.to_string().parse::<Multiple>().unwrap(), multiple);
        }
        for text in ["", "x", "3", "3 x", "-1x", "0x", "0.05x", "21x", "1e1x", "infx", "NaNx", "threex", "1x2x"] {
            assert!(text.parse::<Multiple>().is_err(), "{text}");
        }
    }
}
