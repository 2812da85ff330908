//! Which boot module is what.
//!
//! GRUB passes a string with each module, not its path. The string's first word is the module's name; a name that
//! ends in `.cfg` says that the module is an `xl.cfg` file. Without such a module the first one is dom0's kernel, its
//! string the command line, and the second is dom0's ramdisk, as with Xen. With some, the same holds for modules
//! that are no `.cfg` and to which none refers.

use super::xl::DomainConfig;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A module by its place in the boot loader's list, from 0.
pub type Index = usize;

/// What Debian's GRUB scripts put first in a string so that no boot loader takes away what follows.
const PLACEHOLDER: &str = "placeholder";

/// A module's string without the placeholder.
pub fn string(module: &str) -> &str {
    let trimmed = module.trim();
    match trimmed.strip_prefix(PLACEHOLDER) {
        Some(rest) if rest.is_empty() || rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => trimmed,
    }
}

/// A module's name: the first word of its string, or nothing.
pub fn name(module: &str) -> &str {
    string(module).split_whitespace().next().unwrap_or_default()
}

/// Which of the modules with these strings are `xl.cfg` files.
pub fn configs(modules: &[&str]) -> Vec<Index> {
    (0..modules.len()).filter(|&n| is_config(modules[n])).collect()
}

fn is_config(module: &str) -> bool {
    name(module).ends_with(".cfg")
}

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The initial domain.
    pub dom0: Dom0,
    /// The other domains, in the order of their `.cfg` modules; those whose file is in error are left out.
    pub domains: Vec<Result<Domain, PlanError>>,
}

/// The initial domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dom0 {
    /// There is none.
    None,
    /// Start it.
    Start {
        /// Its kernel.
        kernel: Index,
        /// Its ramdisk.
        ramdisk: Option<Index>,
        /// Its kernel's command line.
        cmdline: String,
    },
    /// The first module may be dom0's kernel or that of a domain whose file is in error. It is not started.
    Unknown,
}

/// A domain of an `xl.cfg` file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its file.
    pub config: Index,
    /// Its kernel.
    pub kernel: Index,
    /// Its ramdisk.
    pub ramdisk: Option<Index>,
}

/// Why there is nothing to start, or a domain cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The boot loader gave no module.
    NoModules,
    /// A file refers to a module that is not there.
    MissingModule {
        /// The name of the `.cfg` module.
        config: String,
        /// `kernel` or `ramdisk`.
        key: &'static str,
        /// The name that is missing.
        name: String,
        /// The names that are there.
        available: Vec<String>,
    },
    /// A second domain of the same name.
    DuplicateName {
        /// The name of the `.cfg` module.
        config: String,
        /// The domain's name.
        name: String,
        /// The name of the `.cfg` module that has it, too.
        first: String,
    },
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModules => write!(
                f,
                "nothing to start: the boot loader gave no module; \
                 add a kernel or an xl.cfg file to the menu entry by module2"
            ),
            Self::MissingModule { config, key, name, available } => {
                write!(f, "{config}: {key} = \"{name}\": no module has this name as its first word; there are: ")?;
                for (n, name) in available.iter().enumerate() {
                    write!(f, "{}{name}", if n > 0 { ", " } else { "" })?;
                }
                Ok(())
            }
            Self::DuplicateName { config, name, first } => {
                write!(f, "{config}: a domain named \"{name}\" is already in {first}; choose another name")
            }
        }
    }
}

impl core::error::Error for PlanError {}

/// Says what to start, from the modules' strings and, in their order, the modules of [`configs`] with what their files
/// say; `None` for a file that is in error.
///
/// # Errors
/// `NoModules`. What is wrong with one domain is in [`Plan::domains`].
pub fn plan(modules: &[&str], configs: &[(Index, Option<&DomainConfig>)]) -> Result<Plan, PlanError> {
    if modules.is_empty() {
        return Err(PlanError::NoModules);
    }
    let mut domains = Vec::new();
    for (n, &(index, config)) in configs.iter().enumerate() {
        let Some(config) = config else { continue };
        domains.push(unique(modules, &configs[..n], index, config).and_then(|()| domain(modules, index, config)));
    }
    Ok(Plan { dom0: dom0(modules, configs), domains })
}

fn unique(
    modules: &[&str],
    before: &[(Index, Option<&DomainConfig>)],
    index: Index,
    config: &DomainConfig,
) -> Result<(), PlanError> {
    match before.iter().find(|(_, other)| other.is_some_and(|other| other.name == config.name)) {
        None => Ok(()),
        Some(&(first, _)) => Err(PlanError::DuplicateName {
            config: name_at(modules, index),
            name: config.name.clone(),
            first: name_at(modules, first),
        }),
    }
}

fn domain(modules: &[&str], index: Index, config: &DomainConfig) -> Result<Domain, PlanError> {
    let find = |key, wanted: &String| {
        let missing = || PlanError::MissingModule {
            config: name_at(modules, index),
            key,
            name: wanted.clone(),
            available: modules.iter().filter(|module| !is_config(module)).map(|module| name(module).into()).collect(),
        };
        modules.iter().position(|module| !is_config(module) && name(module) == wanted).ok_or_else(missing)
    };
    let kernel = find("kernel", &config.kernel)?;
    let ramdisk = config.ramdisk.as_ref().map(|wanted| find("ramdisk", wanted)).transpose()?;
    Ok(Domain { config: index, kernel, ramdisk })
}

fn name_at(modules: &[&str], index: Index) -> String {
    modules.get(index).map(|module| name(module)).unwrap_or_default().into()
}

fn dom0(modules: &[&str], configs: &[(Index, Option<&DomainConfig>)]) -> Dom0 {
    let referred = |module: &str| {
        let wanted = Some(name(module));
        let refers = |config: &DomainConfig| wanted == Some(&config.kernel) || wanted == config.ramdisk.as_deref();
        configs.iter().any(|(_, config)| config.is_some_and(refers))
    };
    let free = |index: usize| modules.get(index).is_some_and(|module| !is_config(module) && !referred(module));
    if !free(0) {
        return Dom0::None;
    }
    if configs.iter().any(|(_, config)| config.is_none()) {
        return Dom0::Unknown;
    }
    Dom0::Start { kernel: 0, ramdisk: free(1).then_some(1), cmdline: string(modules[0]).into() }
}

#[cfg(test)]
mod tests {
    use super::super::xl;
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn config(name: &str, kernel: &str, ramdisk: &str) -> DomainConfig {
        let text = alloc::format!("name='{name}'\ntype='pvh'\nkernel='{kernel}'\nramdisk='{ramdisk}'\nmemory=256");
        xl::parse(text.as_bytes(), None).unwrap().config
    }

    fn start(kernel: Index, ramdisk: Option<Index>, cmdline: &str) -> Dom0 {
        Dom0::Start { kernel, ramdisk, cmdline: cmdline.to_string() }
    }

    #[test]
    fn without_a_cfg_the_first_module_is_the_kernel_and_the_second_the_ramdisk() {
        let plan = plan(&["root=/dev/sda1 ro", ""], &[]).unwrap();
        assert_eq!(plan, Plan { dom0: start(0, Some(1), "root=/dev/sda1 ro"), domains: Vec::new() });
        assert_eq!(super::plan(&["ro"], &[]).unwrap().dom0, start(0, None, "ro"));
    }

    #[test]
    fn debians_placeholder_is_neither_a_name_nor_part_of_the_command_line() {
        assert_eq!(plan(&["placeholder root=/dev/sda1", ""], &[]).unwrap().dom0, start(0, Some(1), "root=/dev/sda1"));
        assert_eq!((name("placeholder web.cfg"), name("placeholders x"), name("")), ("web.cfg", "placeholders", ""));
    }

    #[test]
    fn a_first_module_that_a_cfg_uses_is_no_dom0() {
        let modules = ["vmlinuz", "initrd", "a.cfg", "b.cfg x"];
        assert_eq!(configs(&modules), [2, 3]);
        let (a, b) = (config("a", "vmlinuz", "initrd"), config("b", "vmlinuz", ""));
        let plan = plan(&modules, &[(2, Some(&a)), (3, Some(&b))]).unwrap();
        assert_eq!(plan.dom0, Dom0::None);
        let domain = |config, ramdisk| Ok(Domain { config, kernel: 0, ramdisk });
        assert_eq!(plan.domains, [domain(2, Some(1)), domain(3, None)]);
        let first = super::plan(&["a.cfg", "vmlinuz", "initrd"], &[(0, Some(&a))]).unwrap();
        assert_eq!(first.dom0, Dom0::None);
    }

    #[test]
    fn with_both_the_first_module_is_dom0s_and_the_second_its_ramdisk_unless_a_cfg_uses_it() {
        let a = config("a", "vmlinuz", "initrd");
        let plan = |modules: &[&str], at| super::plan(modules, &[(at, Some(&a))]).unwrap();
        let both = plan(&["dom0 ro", "", "vmlinuz", "initrd", "a.cfg"], 4);
        assert_eq!(both.dom0, start(0, Some(1), "dom0 ro"));
        assert_eq!(both.domains, [Ok(Domain { config: 4, kernel: 2, ramdisk: Some(3) })]);
        assert_eq!(plan(&["dom0", "initrd", "vmlinuz", "a.cfg"], 3).dom0, start(0, None, "dom0"));
        assert_eq!(plan(&["dom0", "a.cfg", "vmlinuz", "initrd"], 1).dom0, start(0, None, "dom0"));
    }

    #[test]
    fn a_cfg_in_error_leaves_open_whose_the_first_module_is_and_stops_no_other_domain() {
        let a = config("a", "vmlinuz", "");
        let plan = plan(&["linux", "vmlinuz", "a.cfg", "bad.cfg"], &[(2, Some(&a)), (3, None)]).unwrap();
        assert_eq!(plan.dom0, Dom0::Unknown);
        assert_eq!(plan.domains, [Ok(Domain { config: 2, kernel: 1, ramdisk: None })]);
    }

    #[test]
    fn a_missing_module_is_named_with_those_that_are_there() {
        let a = config("a", "vmlinuz", "initrd");
        let plan = plan(&["vmlinuz", "other", "a.cfg"], &[(2, Some(&a))]).unwrap();
        assert_eq!(
            plan.domains[0].as_ref().unwrap_err().to_string(),
            "a.cfg: ramdisk = \"initrd\": no module has this name as its first word; there are: vmlinuz, other"
        );
    }

    #[test]
    fn a_second_domain_of_a_name_is_refused_and_the_first_is_not() {
        let a = config("a", "vmlinuz", "");
        let plan = plan(&["vmlinuz", "a.cfg", "b.cfg"], &[(1, Some(&a)), (2, Some(&a))]).unwrap();
        assert!(plan.domains[0].is_ok());
        assert_eq!(
            plan.domains[1].as_ref().unwrap_err().to_string(),
            "b.cfg: a domain named \"a\" is already in a.cfg; choose another name"
        );
    }

    #[test]
    fn no_module_is_an_error_that_says_what_to_add() {
        let error = plan(&[], &[]).unwrap_err();
        assert!(error.to_string().starts_with("nothing to start"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_strings_make_a_panic_and_no_cfg_is_ever_a_kernel(
            modules in proptest::collection::vec("(placeholder )?[ab ]{0,3}(.cfg)?( x)?", 0..5), good: bool
        ) {
            let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
            let a = config("a", "a", "b");
            let configs: Vec<_> = configs(&modules).into_iter().map(|n| (n, good.then_some(&a))).collect();
            let Ok(plan) = plan(&modules, &configs) else { return Ok(()) };
            if let Dom0::Start { kernel, ramdisk, .. } = plan.dom0 {
                prop_assert!(!is_config(modules[kernel]) && ramdisk.is_none_or(|n| !is_config(modules[n])));
            }
            for domain in plan.domains.into_iter().flatten() {
                prop_assert!(!is_config(modules[domain.kernel]));
            }
        }
    }
}
