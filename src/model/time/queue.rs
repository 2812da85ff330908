//! Deadlines with what is to be done at them, the earliest first.
//!
//! A binary heap whose members know their place in it, so that a [`Handle`] cancels in O(log n). Equal deadlines come
//! out in the order in which they went in.

use alloc::vec::Vec;

/// One timer of a [`TimerQueue`], from [`TimerQueue::add`] until it is popped or cancelled; stale afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    slot: u32,
    generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// The member's place in the heap, and what it carries; `None` while the slot is free.
    used: Option<(usize, T)>,
}

#[derive(Clone, Copy, Debug)]
struct Member {
    deadline_ns: u64,
    /// Breaks ties in the order of addition.
    number: u64,
    slot: u32,
}

impl Member {
    fn is_before(&self, other: &Member) -> bool {
        (self.deadline_ns, self.number) < (other.deadline_ns, other.number)
    }
}

/// Timers that carry a `T` each.
#[derive(Debug)]
pub struct TimerQueue<T> {
    /// `heap[i]` is not before `heap[(i - 1) / 2]`.
    heap: Vec<Member>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    next_number: u64,
}

impl<T> Default for TimerQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> TimerQueue<T> {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { heap: Vec::new(), slots: Vec::new(), free: Vec::new(), next_number: 0 }
    }

    /// How many timers wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The earliest deadline in ns.
    pub fn next_deadline(&self) -> Option<u64> {
        self.heap.first().map(|member| member.deadline_ns)
    }

    /// Adds a timer. Gives the payload back if the hypervisor has no memory for it.
    pub fn add(&mut self, deadline_ns: u64, payload: T) -> Result<Handle, T> {
        let Some(slot) = self.take_slot() else { return Err(payload) };
        let place = self.heap.len();
        self.heap.push(Member { deadline_ns, number: self.next_number, slot });
        self.next_number += 1;
        let entry = &mut self.slots[slot as usize];
        entry.used = Some((place, payload));
        let handle = Handle { slot, generation: entry.generation };
        self.rise(place);
        Ok(handle)
    }

    /// Takes a timer out; `None` if it was popped or cancelled before.
    pub fn cancel(&mut self, handle: Handle) -> Option<T> {
        let place = self.place(handle)?;
        self.take(place).map(|(_, payload)| payload)
    }

    /// Gives a timer another deadline, as if it had been taken out and added; `false` if it was popped or cancelled before.
    #[inline]
    pub fn postpone(&mut self, handle: Handle, deadline_ns: u64) -> bool {
        let Some(place) = self.place(handle) else { return false };
        let Some(member) = self.heap.get_mut(place) else { return false };
        (member.deadline_ns, member.number) = (deadline_ns, self.next_number);
        self.next_number += 1;
        if self.heap.len() > 1 {
            self.settle(place);
        }
        true
    }

    /// Where in the heap a timer is.
    fn place(&self, handle: Handle) -> Option<usize> {
        let slot = self.slots.get(handle.slot as usize).filter(|slot| slot.generation == handle.generation)?;
        slot.used.as_ref().map(|(place, _)| *place)
    }

    /// Takes out the earliest timer if its deadline has come, with its deadline.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<(u64, T)> {
        if self.next_deadline()? > now_ns {
            return None;
        }
        self.take(0)
    }

    /// A free slot, with room in the heap and in the free list for every slot.
    fn take_slot(&mut self) -> Option<u32> {
        self.heap.try_reserve(1).ok()?;
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let slot = u32::try_from(self.slots.len()).ok()?;
        self.slots.try_reserve(1).ok()?;
        self.free.try_reserve(self.slots.len() + 1).ok()?;
        self.slots.push(Slot { generation: 0, used: None });
        Some(slot)
    }

    fn take(&mut self, place: usize) -> Option<(u64, T)> {
        let member = *self.heap.get(place)?;
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.note(place);
            self.settle(place);
        }
        let slot = &mut self.slots[member.slot as usize];
        slot.generation = slot.generation.wrapping_add(1);
        let (_, payload) = slot.used.take()?;
        self.free.push(member.slot);
        Some((member.deadline_ns, payload))
    }

    /// Puts a member whose deadline has changed where it belongs.
    fn settle(&mut self, place: usize) {
        self.rise(place);
        self.sink(place);
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 && self.heap[place].is_before(&self.heap[(place - 1) / 2]) {
            self.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
    }

    fn sink(&mut self, mut place: usize) {
        loop {
            let children = 2 * place + 1..(2 * place + 3).min(self.heap.len());
            let least = children.min_by_key(|&child| (self.heap[child].deadline_ns, self.heap[child].number));
            match least {
                Some(child) if self.heap[child].is_before(&self.heap[place]) => {
                    self.swap(place, child);
                    place = child;
                }
                _ => return,
            }
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.note(a);
        self.note(b);
    }

    /// Tells a member's slot where the member is.
    fn note(&mut self, place: usize) {
        let slot = self.heap[place].slot;
        if let Some((known, _)) = &mut self.slots[slot as usize].used {
            *known = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn timers_come_out_by_deadline_and_not_before_it() {
        let mut queue = TimerQueue::new();
        for (at, what) in [(30, 'c'), (10, 'a'), (20, 'b')] {
            queue.add(at, what).unwrap();
        }
        assert_eq!(queue.next_deadline(), Some(10));
        assert_eq!(queue.pop_due(9), None);
        assert_eq!(queue.pop_due(25), Some((10, 'a')));
        assert_eq!(queue.pop_due(25), Some((20, 'b')));
        assert_eq!(queue.pop_due(25), None);
        assert_eq!((queue.len(), queue.is_empty()), (1, false));
    }

    #[test]
    fn equal_deadlines_keep_their_order() {
        let mut queue = TimerQueue::new();
        for n in 0..10 {
            queue.add(5, n).unwrap();
        }
        assert_eq!(
            core::iter::from_fn(|| queue.pop_due(5)).map(|t| t.1).collect::<Vec<_>>(),
            (0..10).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_stale_handle_cancels_nothing() {
        let mut queue = TimerQueue::new();
        let first = queue.add(1, 'a').unwrap();
        assert_eq!(queue.cancel(first), Some('a'));
        let second = queue.add(2, 'b').unwrap();
        assert_eq!(queue.cancel(first), None);
        assert_eq!(queue.pop_due(2), Some((2, 'b')));
        assert_eq!(queue.cancel(second), None);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Add(u64),
        Postpone(usize, u64),
        Cancel(usize),
        Pop(u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0u64..50).prop_map(Op::Add),
            2 => (0usize..60, 0u64..50).prop_map(|(name, at)| Op::Postpone(name, at)),
            1 => (0usize..60).prop_map(Op::Cancel),
            2 => (0u64..50).prop_map(Op::Pop),
        ]
    }

    proptest! {
        #[test]
        fn the_queue_behaves_like_a_sorted_list(ops in proptest::collection::vec(op(), 0..200)) {
            // Deadline, when it was set, and name.
            let (mut queue, mut twin, mut handles) = (TimerQueue::new(), Vec::<(u64, usize, usize)>::new(), Vec::new());
            for (number, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Add(at) => {
                        let name = handles.len();
                        handles.push(queue.add(at, name).unwrap());
                        twin.push((at, number, name));
                        twin.sort();
                    }
                    Op::Postpone(name, at) => if let Some(&handle) = handles.get(name) {
                        let known = twin.iter().position(|t| t.2 == name);
                        prop_assert_eq!(queue.postpone(handle, at), known.is_some());
                        if let Some(known) = known {
                            twin.remove(known);
                            twin.push((at, number, name));
                            twin.sort();
                        }
                    },
                    Op::Cancel(name) => if let Some(&handle) = handles.get(name) {
                        let known = twin.iter().position(|t| t.2 == name);
                        prop_assert_eq!(queue.cancel(handle), known.map(|at| twin.remove(at).2));
                    },
                    Op::Pop(now) => {
                        let due = twin.first().is_some_and(|t| t.0 <= now);
                        let first = due.then(|| twin.remove(0));
                        prop_assert_eq!(queue.pop_due(now), first.map(|(at, _, name)| (at, name)));
                    }
                }
                prop_assert_eq!(queue.next_deadline(), twin.first().map(|t| t.0));
                prop_assert_eq!(queue.len(), twin.len());
            }
        }
    }
}
