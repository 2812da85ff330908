//! The log: the last bytes that were printed, and how far the serial port has come with them.
//!
//! What is printed is kept once, for who reads the log and for the port, which follows at its own pace. If it falls
//! back by more than the log holds, the oldest bytes are lost to it, and counted.

/// The last `SIZE` bytes, each known by its position since boot.
pub struct Log<const SIZE: usize> {
    bytes: [u8; SIZE],
    /// Behind the last byte.
    end: u64,
    /// The first byte that the port has not taken; at most `SIZE` before the end.
    next: u64,
    /// Of a line's end at `next`, the port has the carriage return already.
    has_return: bool,
    /// Bytes that were overwritten before the port took them.
    lost: u64,
}

impl<const SIZE: usize> Default for Log<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const SIZE: usize> Log<SIZE> {
    /// Nothing printed yet.
    pub const fn new() -> Self {
        assert!(SIZE.is_power_of_two());
        Self { bytes: [0; SIZE], end: 0, next: 0, has_return: false, lost: 0 }
    }

    /// Adds bytes, in place of the oldest when full.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.len() > self.room() {
            return self.push_over(bytes);
        }
        let at = self.end as usize % SIZE;
        match self.bytes.get_mut(at..at + bytes.len()) {
            Some(to) => copy(to, bytes),
            None => bytes.iter().zip(at..).for_each(|(&byte, at)| self.bytes[at % SIZE] = byte),
        }
        self.end += bytes.len() as u64;
    }

    /// As [`Self::push`], where bytes are lost to the port.
    #[cold]
    fn push_over(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.bytes[self.end as usize % SIZE] = byte;
            self.end += 1;
        }
        let oldest = self.oldest();
        self.lost += oldest - self.next;
        self.next = oldest;
        self.has_return = false;
    }

    /// Bytes that the port has not taken.
    pub fn waiting(&self) -> usize {
        (self.end - self.next) as usize
    }

    /// Bytes that can be added before one is lost to the port.
    pub fn room(&self) -> usize {
        SIZE - self.waiting()
    }

    /// Takes what comes next for the port, a carriage return before each line's end. Says how many bytes of `out` it is.
    pub fn take(&mut self, out: &mut [u8]) -> usize {
        let mut count = 0;
        while count < out.len() && self.next < self.end {
            let byte = self.bytes[self.next as usize % SIZE];
            let is_return = byte == b'\n' && !self.has_return;
            out[count] = if is_return { b'\r' } else { byte };
            count += 1;
            self.has_return = is_return;
            self.next += u64::from(!is_return);
        }
        count
    }

    /// There is no port: nothing waits for one.
    pub fn take_all(&mut self) {
        self.next = self.end;
        self.has_return = false;
    }

    /// Whether bytes were lost to the port since the last [`Self::take_lost`].
    #[inline]
    pub fn has_lost(&self) -> bool {
        self.lost != 0
    }

    /// How many bytes were lost to the port since the last call.
    pub fn take_lost(&mut self) -> u64 {
        core::mem::take(&mut self.lost)
    }

    /// Copies from position `from`, or from the oldest byte if that one is gone. Gives back where it began and how many.
    pub fn copy(&self, from: u64, out: &mut [u8]) -> (u64, usize) {
        let start = from.max(self.oldest()).min(self.end);
        let count = out.len().min((self.end - start) as usize);
        for (slot, position) in out[..count].iter_mut().zip(start..) {
            *slot = self.bytes[position as usize % SIZE];
        }
        (start, count)
    }

    fn oldest(&self) -> u64 {
        self.end.saturating_sub(SIZE as u64)
    }
}

/// Copies bytes to as many others; few of them in place, which takes less than a call.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    match from.len() {
        17.. => to.copy_from_slice(from),
        8.. => copy_ends::<8>(to, from),
        4.. => copy_ends::<4>(to, from),
        2.. => copy_ends::<2>(to, from),
        1 => copy_ends::<1>(to, from),
        0 => {}
    }
}

/// Copies the first `N` and the last `N`, which may overlap: all there are.
#[inline]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) {
    if let (Some(to), Some(from)) = (to.first_chunk_mut::<N>(), from.first_chunk()) {
        *to = *from;
    }
    if let (Some(to), Some(from)) = (to.last_chunk_mut::<N>(), from.last_chunk()) {
        *to = *from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn taken<const SIZE: usize>(log: &mut Log<SIZE>, count: usize) -> Vec<u8> {
        let mut out = vec![0; count];
        let count = log.take(&mut out);
        out.truncate(count);
        out
    }

    #[test]
    fn the_port_gets_a_return_before_each_end_of_line_whatever_it_takes_at_once() {
        for at_once in 1..8 {
            let mut log = Log::<16>::new();
            log.push(b"a\n\nb\r\n");
            let mut all = Vec::new();
            while log.waiting() > 0 {
                all.extend(taken(&mut log, at_once));
            }
            assert_eq!(all, b"a\r\n\r\nb\r\r\n", "{at_once} at once");
        }
    }

    #[test]
    fn what_the_port_has_not_taken_in_time_is_counted() {
        let mut log = Log::<8>::new();
        log.push(b"\nbcdefgh");
        assert_eq!((log.room(), log.take_lost()), (0, 0));
        assert_eq!(taken(&mut log, 1), b"\r");
        log.push(b"ij");
        assert_eq!(log.take_lost(), 2);
        assert_eq!(log.take_lost(), 0);
        assert_eq!(taken(&mut log, 9), b"cdefghij");
    }

    #[test]
    fn without_a_port_nothing_waits() {
        let mut log = Log::<8>::new();
        log.push(b"abc");
        log.take_all();
        assert_eq!((log.waiting(), log.room(), log.take_lost()), (0, 8, 0));
        let mut out = [0; 8];
        assert_eq!(log.copy(0, &mut out), (0, 3));
    }

    #[test]
    fn the_log_keeps_the_last_bytes_and_says_from_where() {
        let mut log = Log::<8>::new();
        log.push(b"0123456789");
        let mut out = [0; 4];
        assert_eq!(log.copy(0, &mut out), (2, 4));
        assert_eq!(&out, b"2345");
        assert_eq!(log.copy(8, &mut out), (8, 2));
        assert_eq!(log.copy(20, &mut out), (10, 0));
    }

    proptest! {
        #[test]
        fn the_port_gets_everything_in_order_but_what_is_counted(
            steps in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..20), 0usize..20), 0..50),
        ) {
            let (mut log, mut twin, mut oldest) = (Log::<32>::new(), Vec::new(), 0);
            let without_returns = |bytes: &[u8]| bytes.iter().copied().filter(|&byte| byte != b'\r').collect::<Vec<_>>();
            for (bytes, count) in steps {
                log.push(&bytes);
                twin.extend(bytes);
                oldest += log.take_lost() as usize;
                let got = taken(&mut log, count);
                let next = twin.len() - log.waiting();
                prop_assert_eq!(without_returns(&got), without_returns(&twin[oldest..next]));
                oldest = next;
            }
        }
    }
}
