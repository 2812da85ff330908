//! Which NUMA node a processor is on, by the SRAT (ACPI 6.5 5.2.16).
//!
//! Firmware numbers proximity domains as it likes; nodes have numbers from 0, in the order in which the table names them.

use alloc::vec::Vec;

/// The most processors that are kept.
const PROCESSORS_MAX: usize = 1024;
/// Where the first structure begins: behind the header and two reserved fields.
const STRUCTURES: usize = 48;
/// From this revision on, proximity domains of structures by local APIC id have 32 bits instead of 8.
const WIDE_REVISION: u8 = 2;

/// Types of structures.
const LOCAL_APIC: u8 = 0;
const LOCAL_X2APIC: u8 = 2;

/// The nodes of processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// APIC ids, each once, with the number of the node.
    processors: Vec<(u32, u16)>,
    /// Proximity domains by node.
    domains: Vec<u32>,
}

impl Nodes {
    /// Reads a whole SRAT. What is not believable in it and what follows that is left out.
    pub fn of_srat(table: &[u8]) -> Self {
        let mut nodes = Self::default();
        let is_wide = table.get(8).is_some_and(|&revision| revision >= WIDE_REVISION);
        let mut rest = table.get(STRUCTURES..).unwrap_or_default();
        while let [_, len, ..] = *rest
            && len >= 2
            && let Some((structure, after)) = rest.split_at_checked(usize::from(len))
        {
            if let Some((apic_id, domain)) = affinity(structure, is_wide) {
                nodes.add(apic_id, domain);
            }
            rest = after;
        }
        nodes
    }

    fn add(&mut self, apic_id: u32, domain: u32) {
        if self.processors.len() == PROCESSORS_MAX || self.node_of(apic_id).is_some() {
            return;
        }
        let known = self.domains.iter().position(|&other| other == domain);
        let node = known.unwrap_or(self.domains.len());
        if known.is_none() {
            self.domains.push(domain);
        }
        self.processors.push((apic_id, node as u16)); // fewer nodes than processors
    }

    /// The node of the processor with this APIC id.
    pub fn node_of(&self, apic_id: u32) -> Option<u16> {
        self.processors.iter().find(|(id, _)| *id == apic_id).map(|&(_, node)| node)
    }

    /// How many nodes have processors.
    pub fn count(&self) -> usize {
        self.domains.len()
    }
}

/// APIC id and proximity domain of a processor, if that is what a structure says, and the processor is enabled.
fn affinity(structure: &[u8], is_wide: bool) -> Option<(u32, u32)> {
    match *structure {
        [LOCAL_APIC, _, low, id, enabled, _, _, _, _, a, b, c, ..] if enabled & 1 != 0 => {
            let domain = if is_wide { [low, a, b, c] } else { [low, 0, 0, 0] };
            Some((u32::from(id), u32::from_le_bytes(domain)))
        }
        [LOCAL_X2APIC, _, _, _, d0, d1, d2, d3, i0, i1, i2, i3, enabled, ..] if enabled & 1 != 0 => {
            Some((u32::from_le_bytes([i0, i1, i2, i3]), u32::from_le_bytes([d0, d1, d2, d3])))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn local_apic(id: u8, domain: u32, flags: u8) -> Vec<u8> {
        let [low, high @ ..] = domain.to_le_bytes();
        [&[0, 16, low, id, flags, 0, 0, 0, 0][..], &high, &[0; 4]].concat()
    }

    fn local_x2apic(id: u32, domain: u32, flags: u8) -> Vec<u8> {
        let numbers = [domain.to_le_bytes(), id.to_le_bytes(), [flags, 0, 0, 0]].concat();
        [&[2, 24, 0, 0][..], &numbers, &[0; 8]].concat()
    }

    fn table(revision: u8, structures: &[Vec<u8>]) -> Vec<u8> {
        let mut table = vec![0; STRUCTURES];
        table[..4].copy_from_slice(b"SRAT");
        table[8] = revision;
        table.extend(structures.concat());
        table
    }

    #[test]
    fn nodes_are_numbered_as_they_come() {
        let memory = [&[1, 40][..], &[0xff; 38]].concat();
        let structures = [
            local_apic(4, 7, 1),
            memory,
            local_x2apic(0x1_0000, 0x100_0007, 1),
            local_apic(5, 7, 1),
            local_apic(9, 0, 1),
        ];
        let nodes = Nodes::of_srat(&table(3, &structures));
        assert_eq!([4, 0x1_0000, 5, 9, 6].map(|id| nodes.node_of(id)), [Some(0), Some(1), Some(0), Some(2), None]);
        assert_eq!(nodes.count(), 3);
    }

    #[test]
    fn a_processor_that_is_not_enabled_or_comes_again_does_not_count() {
        let nodes = Nodes::of_srat(&table(3, &[local_apic(1, 5, 0), local_apic(2, 6, 1), local_x2apic(2, 8, 1)]));
        assert_eq!((nodes.node_of(1), nodes.node_of(2), nodes.count()), (None, Some(0), 1));
    }

    #[test]
    fn proximity_domains_of_old_tables_have_eight_bits() {
        let structures = [local_apic(1, 0xabcd_ef01, 1), local_apic(2, 0x0000_0001, 1)];
        assert_eq!(Nodes::of_srat(&table(1, &structures)).count(), 1);
        assert_eq!(Nodes::of_srat(&table(2, &structures)).count(), 2);
    }

    #[test]
    fn what_follows_a_structure_of_no_length_or_too_great_a_one_is_left_out() {
        let good = local_apic(1, 0, 1);
        for bad in [vec![0, 0], vec![0, 1], vec![2, 255], vec![0]] {
            let nodes = Nodes::of_srat(&table(3, &[good.clone(), bad, local_apic(2, 0, 1)]));
            assert_eq!((nodes.node_of(1), nodes.node_of(2)), (Some(0), None));
        }
        for len in 0..STRUCTURES + 16 {
            assert_eq!(Nodes::of_srat(&table(3, core::slice::from_ref(&good))[..len]), Nodes::default(), "{len}");
        }
        let short = vec![0, 8, 0, 3, 1, 0, 0, 0];
        assert_eq!(Nodes::of_srat(&table(3, &[short, good])).node_of(3), None);
    }

    #[test]
    fn there_is_a_limit_to_what_is_kept() {
        let structures: Vec<_> = (0..2000).map(|id| local_x2apic(id, id, 1)).collect();
        let nodes = Nodes::of_srat(&table(3, &structures));
        assert_eq!((nodes.count(), nodes.node_of(1023), nodes.node_of(1024)), (1024, Some(1023), None));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_make_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let nodes = Nodes::of_srat(&bytes);
            prop_assert!(nodes.processors.iter().all(|&(_, node)| usize::from(node) < nodes.count()));
        }
    }
}
