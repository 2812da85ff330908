//! Where a processor says that it is: CPUID 0x1F, 0xB or 0x8000_001E, and 4 or 0x8000_001D for caches (SDM 2A CPUID; APM 3
//! appendix E).

use super::Location;

/// The type of the level of CPUID 0x1F and 0xB that is the threads of a core; 0 is that of no level.
const THREADS: u32 = 1;

impl Location {
    /// Where the processor is whose CPUID `leaf` reads: leaf and subleaf in; EAX, EBX, ECX and EDX out. What a processor
    /// does not say is taken for not shared. Its package stands for its node, where it does not tell that.
    pub fn of_processor(leaf: impl Fn(u32, u32) -> [u32; 4]) -> Self {
        let ([max, ..], [max_extended, ..]) = (leaf(0, 0), leaf(0x8000_0000, 0));
        // Old processors: the APIC id alone, one package.
        let (id, mut threads, package) = levels(&leaf, max).unwrap_or((leaf(1, 0)[1] >> 24, 0, u32::BITS));
        let shifted = |by: u32| id.checked_shr(by).unwrap_or(0) as u16;
        let mut node = shifted(package);
        let has_extensions = max_extended >= 0x8000_001e && leaf(0x8000_0001, 0)[2] & 1 << 22 != 0;
        if has_extensions {
            let [_, core, nodes, _] = leaf(0x8000_001e, 0);
            (threads, node) = (width((core >> 8 & 0xff) + 1), (nodes & 0xff) as u16);
        }
        let has_amd_caches = max_extended >= 0x8000_001d && leaf(0x8000_001d, 0)[0] & 31 != 0;
        let caches = if has_amd_caches { Some(0x8000_001d) } else { Some(4).filter(|_| max >= 4) };
        let sharing = caches.and_then(|number| {
            let all = (0..8).map(|n| leaf(number, n)).take_while(|cache| cache[0] & 31 != 0);
            all.max_by_key(|cache| cache[0] >> 5 & 7).map(|cache| (cache[0] >> 14 & 0xfff) + 1)
        });
        Self { core: shifted(threads), cache: sharing.map_or(node, |sharers| shifted(width(sharers))), node }
    }
}

/// By CPUID 0x1F or 0xB: the APIC id, and how many of its bits number the threads of a core and all of a package. The last
/// level leads to the package.
fn levels(leaf: &impl Fn(u32, u32) -> [u32; 4], max: u32) -> Option<(u32, u32, u32)> {
    let is_level = |[_, ebx, ecx, _]: &[u32; 4]| *ebx != 0 && ecx >> 8 & 0xff != 0;
    let number = [0x1f, 0xb].into_iter().find(|&number| max >= number && is_level(&leaf(number, 0)))?;
    let levels = (0..8).map(|n| leaf(number, n)).take_while(is_level);
    Some(levels.fold((0, 0, 0), |(_, threads, _), [eax, _, ecx, id]| {
        let shift = eax & 31;
        (id, if ecx >> 8 & 0xff == THREADS { shift } else { threads }, shift)
    }))
}

/// Bits that number this many.
fn width(count: u32) -> u32 {
    count.next_power_of_two().ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two threads to a core, four cores to a package, a cache for two cores.
    fn machine(id: u32) -> impl Fn(u32, u32) -> [u32; 4] {
        move |leaf, subleaf| match (leaf, subleaf) {
            (0, _) => [0xb, 0, 0, 0],
            (1, _) => [0, id << 24, 0, 0],
            (4, 0) => [1 << 14 | 1 << 5 | 1, 0, 0, 0],
            (4, 1) => [3 << 14 | 3 << 5 | 3, 0, 0, 0],
            (0xb, 0) => [1, 2, 1 << 8, id],
            (0xb, 1) => [3, 8, 2 << 8 | 1, id],
            _ => [0; 4],
        }
    }

    #[test]
    fn threads_share_cores_cores_caches_and_caches_nodes() {
        let at = |id| Location::of_processor(machine(id));
        assert_eq!(at(0), Location { core: 0, cache: 0, node: 0 });
        assert_eq!(at(13), Location { core: 6, cache: 3, node: 1 });
        let distances = [1, 2, 4, 8].map(|id| at(0).distance(at(id)));
        assert_eq!(distances, [1, 2, 3, 4]);
    }

    #[test]
    fn a_processor_that_says_nothing_shares_nothing_but_its_board() {
        let old = |leaf, _| if leaf == 1 { [0, 5 << 24, 0, 0] } else { [0; 4] };
        assert_eq!(Location::of_processor(old), Location { core: 5, cache: 0, node: 0 });
    }
    /// Levels of a leaf: type and shift, of the processor with this APIC id.
    fn level(levels: &[(u32, u32)], subleaf: u32, id: u32) -> [u32; 4] {
        let (kind, shift) = levels.get(subleaf as usize).copied().unwrap_or_default();
        [shift, 1 << shift & !1, kind << 8 | subleaf, id]
    }

    #[test]
    fn levels_are_known_by_their_types_and_the_last_leads_to_the_package() {
        const SMT: u32 = 1;
        const CORE: u32 = 2;
        const DIE: u32 = 5;
        for (levels_1f, levels_b, at) in [
            // Two threads, eight cores, two dies: 0xB ends with the cores of a die.
            (&[(SMT, 1), (CORE, 4), (DIE, 5)][..], &[(SMT, 1), (CORE, 4)][..], [0x35 >> 1, 1]),
            (&[], &[(SMT, 1), (CORE, 4)], [0x35 >> 1, 3]),
            // Without threads the cores come first; their level may lead past several APIC ids.
            (&[], &[(CORE, 4)], [0x35, 3]),
            (&[(CORE, 3)], &[], [0x35, 6]),
            (&[], &[], [0x35, 0]),
        ] {
            let location = Location::of_processor(|leaf, subleaf| match leaf {
                0 => [0x1f, 0, 0, 0],
                1 => [0, 0x35 << 24, 0, 0],
                0xb => level(levels_b, subleaf, 0x35),
                0x1f => level(levels_1f, subleaf, 0x35),
                _ => [0; 4],
            });
            assert_eq!([location.core, location.node], at, "{levels_1f:?} {levels_b:?}");
        }
    }

    #[test]
    fn first_generation_zen_tells_of_threads_and_nodes_by_a_leaf_of_its_own() {
        // The second socket's third die, without 0xB: eight threads to a cache.
        let zen = |leaf, subleaf| match (leaf, subleaf) {
            (0, _) => [0xd, 0, 0, 0],
            (1, _) => [0, 0x6b << 24, 0, 0],
            (0x8000_0000, _) => [0x8000_001f, 0, 0, 0],
            (0x8000_0001, _) => [0, 0, 1 << 22, 0],
            (0x8000_001d, 0) => [7 << 14 | 3 << 5 | 3, 0, 0, 0],
            (0x8000_001e, _) => [0x6b, 1 << 8 | 5, 3 << 8 | 6, 0],
            _ => [0; 4],
        };
        assert_eq!(Location::of_processor(zen), Location { core: 0x35, cache: 0xd, node: 6 });
        // Not where the extensions are not announced.
        let hidden = |leaf, subleaf| if leaf == 0x8000_0001 { [0; 4] } else { zen(leaf, subleaf) };
        assert_eq!(Location::of_processor(hidden), Location { core: 0x6b, cache: 0xd, node: 0 });
    }
}
