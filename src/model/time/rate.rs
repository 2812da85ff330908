//! How many messages may come in a while: a few at once, more only after the while is over.

/// A limit of [`Rate::BURST`] in each [`Rate::WHILE_NS`], as Xen's default for what guests cause.
#[derive(Debug)]
pub struct Rate {
    /// When the present while began.
    since_ns: u64,
    /// What came in it.
    came: u32,
}

impl Rate {
    /// Messages in a while.
    pub const BURST: u32 = 10;
    /// A while.
    pub const WHILE_NS: u64 = 5_000_000_000;

    /// Nothing has come yet.
    pub const fn new() -> Self {
        Self { since_ns: 0, came: 0 }
    }

    /// Whether one more may come now.
    pub fn admit(&mut self, now_ns: u64) -> bool {
        if now_ns.saturating_sub(self.since_ns) >= Self::WHILE_NS {
            *self = Self { since_ns: now_ns, came: 0 };
        }
        self.came = self.came.saturating_add(1);
        self.came <= Self::BURST
    }
}

impl Default for Rate {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_messages_come_in_five_seconds_and_ten_more_in_the_next() {
        let mut rate = Rate::new();
        let admitted = |rate: &mut Rate, at: u64| (0..1000).filter(|&n| rate.admit(at + n)).count();
        assert_eq!(admitted(&mut rate, Rate::WHILE_NS), 10);
        assert_eq!(admitted(&mut rate, 2 * Rate::WHILE_NS - 5000), 0);
        assert_eq!(admitted(&mut rate, 2 * Rate::WHILE_NS), 10);
    }
}
