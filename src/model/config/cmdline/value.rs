//! Values that several options share: booleans, numbers and sizes.

/// `yes`, `on`, `true`, `enable`, `1`, or their opposites; `None` for anything else.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "yes" | "on" | "true" | "enable" | "1" => Some(true),
        "no" | "off" | "false" | "disable" | "0" => Some(false),
        _ => None,
    }
}

/// A number in decimal, hexadecimal (`0x`) or octal (`0`).
pub fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // `from_str_radix` would take a sign.
    if digits.starts_with(['+', '-']) { None } else { u64::from_str_radix(digits, radix).ok() }
}

/// Bytes: a number with `B`, `K`, `M`, `G` or `T`, in either case; without one of them it is in KiB, as in Xen.
pub fn size(text: &str) -> Option<u64> {
    let shift = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'b' if !text.starts_with("0x") => 0,
        b'k' => 10,
        b'm' => 20,
        b'g' => 30,
        b't' => 40,
        _ => return number(text)?.checked_mul(1 << 10),
    };
    number(&text[..text.len() - 1])?.checked_mul(1 << shift)
}

/// An amount of memory, in part relative to the machine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// The bytes are to be left free rather than taken.
    pub is_rest: bool,
    /// Hundredths of the machine's memory, on top; at most 100.
    pub percent: u8,
}

impl Amount {
    /// `2G`, `-1G` (all but that), `25%`, or `512M+10%`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_rest = text.starts_with('-');
        let text = text.strip_prefix('-').unwrap_or(text);
        let (bytes, percent) = match text.strip_suffix('%') {
            None => (size(text)?, 0),
            Some(text) => {
                let (bytes, percent) = text.split_once('+').unwrap_or(("0", text));
                (size(bytes)?, u8::try_from(number(percent)?).ok().filter(|&percent| percent <= 100)?)
            }
        };
        Some(Self { bytes, is_rest, percent })
    }

    /// Bytes on a machine that has `total`.
    pub fn of(&self, total: u64) -> u64 {
        // At most `total`, so it fits.
        let share = (u128::from(total) * u128::from(self.percent) / 100) as u64;
        let amount = self.bytes.saturating_add(share);
        if self.is_rest { total.saturating_sub(amount) } else { amount }
    }
}
