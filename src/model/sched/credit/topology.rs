//! Where a processor says that it is: CPUID 0xB, and 4 or 0x8000_001D for caches (SDM 2A CPUID; APM 3 appendix E).

use super::Location;

/// A level of CPUID 0xB whose shift leads from the APIC id to the next: threads to cores, and cores to packages.
const THREADS: u32 = 0;
const CORES: u32 = 1;

impl Location {
    /// Where the processor is whose CPUID `leaf` reads: leaf and subleaf in; EAX, EBX, ECX and EDX out. What a processor
    /// does not say is taken for not shared. Its package stands for its node.
    pub fn of_processor(leaf: impl Fn(u32, u32) -> [u32; 4]) -> Self {
        let ([max, ..], [max_extended, ..]) = (leaf(0, 0), leaf(0x8000_0000, 0));
        let levels = [THREADS, CORES].map(|level| if max >= 0xb { leaf(0xb, level) } else { [0; 4] });
        if levels[0][1] == 0 {
            // As old processors: the APIC id alone, one package.
            let id = (leaf(1, 0)[1] >> 24) as u16;
            return Self { core: id, cache: 0, node: 0 };
        }
        let id = levels[0][3];
        let shifted = |by: u32| id.checked_shr(by).unwrap_or(0) as u16;
        let package = if levels[1][1] == 0 { levels[0][0] & 31 } else { levels[1][0] & 31 };
        let has_amd_caches = max_extended >= 0x8000_001d && leaf(0x8000_001d, 0)[0] & 31 != 0;
        let caches = if has_amd_caches { Some(0x8000_001d) } else { Some(4).filter(|_| max >= 4) };
        let sharing = caches.and_then(|number| {
            let all = (0..8).map(|n| leaf(number, n)).take_while(|cache| cache[0] & 31 != 0);
            all.max_by_key(|cache| cache[0] >> 5 & 7).map(|cache| (cache[0] >> 14 & 0xfff) + 1)
        });
        let cache = sharing.map_or(package, |threads| threads.next_power_of_two().ilog2());
        Self { core: shifted(levels[0][0] & 31), cache: shifted(cache), node: shifted(package) }
    }
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
}
