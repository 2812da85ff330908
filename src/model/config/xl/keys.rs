//! The keys of xl.cfg(5) in Xen 4.17.

/// Keys that have an effect.
pub const BUILT: [&str; 22] = [
    "name",
    "type",
    "uuid",
    "kernel",
    "ramdisk",
    "cmdline",
    "root",
    "extra",
    "memory",
    "maxmem",
    "vcpus",
    "maxvcpus",
    "on_poweroff",
    "on_reboot",
    "on_watchdog",
    "on_crash",
    "on_soft_reset",
    "builder",
    "cpu_weight",
    "cap",
    "cpus",
    "cpus_soft",
];

/// Keys that `xl` knows, by subject, and that have no effect.
pub const KNOWN: &[&[&str]] = &[
    &["bootloader", "bootloader_args", "init_seclabel", "seclabel", "pool", "driver_domain"],
    &["device_tree", "passthrough", "nomigrate", "xend_suspend_evtchn_compat", "vmtrace_buf_kb", "vpmu"],
    // Shim for PV kernels.
    &["pvshim", "pvshim_path", "pvshim_cmdline", "pvshim_extra"],
    // Scheduling and placement.
    &["period", "slice", "latency", "extratime", "vnuma"],
    // Limits.
    &["max_grant_frames", "max_maptrack_frames", "max_grant_version", "max_event_channels"],
    // Paging, processor and time.
    &["hap", "oos", "shadow_memory", "pae", "nx", "nestedhvm", "altp2mhvm", "altp2m", "cpuid", "msr_relaxed"],
    &["mca_caps", "viridian", "tsc_mode", "timer_mode", "vpt_align", "localtime", "rtc_timeoffset", "ms_vm_genid"],
    // Devices.
    &["disk", "vif", "vif2", "vtpm", "p9", "pvcalls", "vfb", "vkb", "vdispl", "vsnd", "channel", "vuart"],
    &["pci", "pci_permissive", "pci_msitranslate", "pci_seize", "pci_power_mgmt", "gfx_passthru", "rdm"],
    &["rdm_mem_boundary", "dtdev", "usbctrl", "usbdev", "ioports", "irqs", "iomem"],
    // The emulated machine.
    &["boot", "hdtype", "firmware", "firmware_override", "bios", "bios_path_override", "acpi"],
    &["acpi_s3", "acpi_s4", "acpi_laptop_slate", "acpi_firmware", "smbios_firmware", "apic", "hpet", "e820_host"],
    &["mmio_hole", "xen_platform_pci", "vendor_device", "videoram", "stdvga", "vga", "serial"],
    &["vnc", "vnclisten", "vncdisplay", "vncunused", "vncpasswd", "vncviewer", "keymap", "sdl", "display"],
    &["xauthority", "opengl", "nographic", "spice", "spicehost", "spiceport", "spicetls_port", "spicepasswd"],
    &["spicedisable_ticketing", "spiceagent_mouse", "spicevdagent", "spice_clipboard_sharing"],
    &["spiceusbredirection", "spice_image_compression", "spice_streaming_video", "vkb_device", "usb", "usbversion"],
    &["usbdevice", "soundhw"],
    // The device model.
    &["device_model", "device_model_version", "device_model_override", "device_model_stubdomain_override"],
    &["device_model_stubdomain_seclabel", "device_model_args", "device_model_args_pv", "device_model_args_hvm"],
    &["device_model_user", "dm_restrict", "stubdomain_kernel", "stubdomain_ramdisk", "stubdomain_cmdline"],
    &["stubdomain_memory"],
    // ARM.
    &["gic_version", "tee"],
];

/// Whether `xl` knows this key although it has no effect.
pub fn is_known(key: &str) -> bool {
    KNOWN.iter().any(|subject| subject.contains(&key))
}
