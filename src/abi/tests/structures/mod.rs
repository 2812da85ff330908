//! The structures to check: ours, Xen's, and the fields by our name, with Xen's where it differs.

use abi::*;

/// What to check (for messages), the C expression, and our value.
pub type Check = (String, String, usize);

macro_rules! structures {
    ($($ours:ty = $theirs:literal { $($field:ident $(= $c:literal)?),* $(,)? })*) => {
        /// Sizes and offsets, in bytes.
        pub fn all() -> Vec<Check> {
            let mut checks: Vec<Check> = Vec::new();
            $(
                checks.push((format!("size {}", stringify!($ours)), format!("sizeof({})", $theirs), size_of::<$ours>()));
                $(
                    let name = [$($c,)? stringify!($field)][0];
                    checks.push((
                        format!("{}.{}", stringify!($ours), stringify!($field)),
                        format!("offsetof({}, {name})", $theirs),
                        core::mem::offset_of!($ours, $field),
                    ));
                )*
            )*
            checks
        }
    };
}

structures! {
    callback::CallbackRegister = "struct callback_register" { kind = "type", flags, address }
    callback::CallbackUnregister = "struct callback_unregister" { kind = "type" }
    callback::NmiCallback = "struct xennmi_callback" { handler_address, pad }
    console::XenconsInterface = "struct xencons_interface" {
        input = "in", output = "out", in_cons, in_prod, out_cons, out_prod,
    }
    event_channel::AllocUnbound = "struct evtchn_alloc_unbound" { dom, remote_dom, port }
    event_channel::BindInterdomain = "struct evtchn_bind_interdomain" { remote_dom, remote_port, local_port }
    event_channel::BindVirq = "struct evtchn_bind_virq" { virq, vcpu, port }
    event_channel::BindPirq = "struct evtchn_bind_pirq" { pirq, flags, port }
    event_channel::BindIpi = "struct evtchn_bind_ipi" { vcpu, port }
    event_channel::Close = "struct evtchn_close" { port }
    event_channel::Send = "struct evtchn_send" { port }
    event_channel::Status = "struct evtchn_status" {
        dom, port, status, vcpu, peer = "u.virq", peer_port = "u.interdomain.port",
    }
    event_channel::BindVcpu = "struct evtchn_bind_vcpu" { port, vcpu }
    event_channel::Unmask = "struct evtchn_unmask" { port }
    event_channel::Reset = "struct evtchn_reset" { dom }
    event_channel::InitControl = "struct evtchn_init_control" { control_gfn, offset, vcpu, link_bits, pad = "_pad" }
    event_channel::ExpandArray = "struct evtchn_expand_array" { array_gfn }
    event_channel::SetPriority = "struct evtchn_set_priority" { port, priority }
    event_channel::FifoControlBlock = "struct evtchn_fifo_control_block" { ready, rsvd = "_rsvd", head }
    grant_table::GrantEntryV1 = "struct grant_entry_v1" { flags, domid, frame }
    grant_table::GrantEntryV2 = "union grant_entry_v2" {
        flags = "hdr.flags", domid = "hdr.domid", page_off = "sub_page.page_off", length = "sub_page.length",
        frame = "full_page.frame",
    }
    grant_table::MapGrantRef = "struct gnttab_map_grant_ref" {
        host_addr, flags, grant_ref = "ref", dom, status, handle, dev_bus_addr,
    }
    grant_table::UnmapGrantRef = "struct gnttab_unmap_grant_ref" { host_addr, dev_bus_addr, handle, status }
    grant_table::SetupTable = "struct gnttab_setup_table" { dom, nr_frames, status, frame_list }
    grant_table::DumpTable = "struct gnttab_dump_table" { dom, status }
    grant_table::Transfer = "struct gnttab_transfer" { mfn, domid, grant_ref = "ref", status }
    grant_table::CopyPtr = "struct gnttab_copy_ptr" { frame_or_ref = "u", domid, offset }
    grant_table::GrantCopy = "struct gnttab_copy" { source, dest, len, flags, status }
    grant_table::QuerySize = "struct gnttab_query_size" { dom, nr_frames, max_nr_frames, status }
    grant_table::UnmapAndReplace = "struct gnttab_unmap_and_replace" { host_addr, new_addr, handle, status }
    grant_table::SetVersion = "struct gnttab_set_version" { version }
    grant_table::GetStatusFrames = "struct gnttab_get_status_frames" { nr_frames, dom, status, frame_list }
    grant_table::GetVersion = "struct gnttab_get_version" { dom, pad, version }
    grant_table::SwapGrantRef = "struct gnttab_swap_grant_ref" { ref_a, ref_b, status }
    grant_table::CacheFlush = "struct gnttab_cache_flush" { addr_or_ref = "a", offset, length, op }
    hvm_op::HvmParam = "struct xen_hvm_param" { domid, pad, index, value }
    hvm_op::PagetableDying = "struct xen_hvm_pagetable_dying" { domid, pad, gpa }
    hvm_op::GetTime = "struct xen_hvm_get_time" { now }
    hvm_op::Xentrace = "struct xen_hvm_xentrace" { event, extra_bytes, extra }
    hvm_op::GetMemType = "struct xen_hvm_get_mem_type" { domid, mem_type, pad, pfn }
    hvm_op::EvtchnUpcallVector = "struct xen_hvm_evtchn_upcall_vector" { vcpu, vector }
    hvm_vcpu::HvmContext = "struct vcpu_hvm_context" { mode, pad, cpu_regs }
    hvm_vcpu::X86_32 = "struct vcpu_hvm_x86_32" {
        eax, ecx, edx, ebx, esp, ebp, esi, edi, eip, eflags, cr0, cr3, cr4, pad1, efer, cs_base, ds_base, ss_base,
        es_base, tr_base, cs_limit, ds_limit, ss_limit, es_limit, tr_limit, cs_ar, ds_ar, ss_ar, es_ar, tr_ar, pad2,
    }
    hvm_vcpu::X86_64 = "struct vcpu_hvm_x86_64" {
        rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, rip, rflags, cr0, cr3, cr4, efer,
    }
    memory::MemoryReservation = "struct xen_memory_reservation" {
        extent_start, nr_extents, extent_order, mem_flags, domid,
    }
    memory::MemoryExchange = "struct xen_memory_exchange" { input = "in", output = "out", nr_exchanged }
    memory::MemoryDomain = "struct xen_memory_domain" { domid }
    memory::MachphysMfnList = "struct xen_machphys_mfn_list" { max_extents, extent_start, nr_extents }
    memory::MachphysMapping = "struct xen_machphys_mapping" { v_start, v_end, max_mfn }
    memory::AddToPhysmap = "struct xen_add_to_physmap" { domid, size, space, idx, gpfn }
    memory::AddToPhysmapBatch = "struct xen_add_to_physmap_batch" {
        domid, space, size, foreign_domid = "u.foreign_domid", idxs, gpfns, errs,
    }
    memory::RemoveFromPhysmap = "struct xen_remove_from_physmap" { domid, gpfn }
    memory::MemoryMap = "struct xen_memory_map" { nr_entries, buffer }
    memory::ForeignMemoryMap = "struct xen_foreign_memory_map" { domid, map }
    memory::PodTarget = "struct xen_pod_target" { target_pages, tot_pages, pod_cache_pages, pod_entries, domid }
    memory::ReservedDeviceMemoryMap = "struct xen_reserved_device_memory_map" {
        flags, nr_entries, buffer, pci_seg = "dev.pci.seg", pci_bus = "dev.pci.bus", pci_devfn = "dev.pci.devfn",
    }
    memory::AcquireResource = "struct xen_mem_acquire_resource" {
        domid, kind = "type", id, nr_frames, pad, frame, frame_list,
    }
    memory::VnumaTopologyInfo = "struct xen_vnuma_topology_info" {
        domid, pad, nr_vnodes, nr_vcpus, nr_vmemranges, vdistance, vcpu_to_vnode, vmemrange,
    }
    physdev::SetIopl = "struct physdev_set_iopl" { iopl }
    physdev::SetIobitmap = "struct physdev_set_iobitmap" { bitmap, nr_ports }
    physdev::Apic = "struct physdev_apic" { apic_physbase, reg, value }
    physdev::ManagePci = "struct physdev_manage_pci" { bus, devfn }
    physdev::PciMmcfgReserved = "struct physdev_pci_mmcfg_reserved" { address, segment, start_bus, end_bus, flags }
    physdev::PciDevice = "struct physdev_pci_device" { seg, bus, devfn }
    platform::PlatformOp = "struct xen_platform_op" { cmd, interface_version, u }
    platform::Settime32 = "struct xenpf_settime32" { secs, nsecs, system_time }
    platform::Settime64 = "struct xenpf_settime64" { secs, nsecs, mbz, system_time }
    platform::EnterAcpiSleep = "struct xenpf_enter_acpi_sleep" { val_a, val_b, sleep_state, flags }
    platform::PcpuInfo = "struct xenpf_pcpuinfo" { xen_cpuid, max_present, flags, apic_id, acpi_id }
    platform::PcpuVersion = "struct xenpf_pcpu_version" {
        xen_cpuid, max_present, vendor_id, family, model, stepping,
    }
    pv_start::StartInfo = "struct start_info" {
        magic, nr_pages, shared_info, flags, store_mfn, store_evtchn, console_mfn = "console.domU.mfn",
        console_evtchn = "console.domU.evtchn", pt_base, nr_pt_frames, mfn_list, mod_start, mod_len, cmd_line,
        first_p2m_pfn, nr_p2m_frames,
    }
    sched::Shutdown = "struct sched_shutdown" { reason }
    sched::Poll = "struct sched_poll" { ports, nr_ports, timeout }
    sched::RemoteShutdown = "struct sched_remote_shutdown" { domain_id, reason }
    sched::Watchdog = "struct sched_watchdog" { id, timeout }
    sched::PinOverride = "struct sched_pin_override" { pcpu }
    start_info::HvmStartInfo = "struct hvm_start_info" {
        magic, version, flags, nr_modules, modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr, memmap_entries,
        reserved,
    }
    start_info::ModlistEntry = "struct hvm_modlist_entry" { paddr, size, cmdline_paddr, reserved }
    start_info::MemmapTableEntry = "struct hvm_memmap_table_entry" { addr, size, kind = "type", reserved }
    vcpu::RunstateInfo = "struct vcpu_runstate_info" { state, state_entry_time, time }
    vcpu::RegisterRunstateMemoryArea = "struct vcpu_register_runstate_memory_area" { addr }
    vcpu::SetPeriodicTimer = "struct vcpu_set_periodic_timer" { period_ns }
    vcpu::SetSingleshotTimer = "struct vcpu_set_singleshot_timer" { timeout_abs_ns, flags }
    vcpu::RegisterVcpuInfo = "struct vcpu_register_vcpu_info" { mfn, offset, rsvd }
    vcpu::GetPhysid = "struct vcpu_get_physid" { phys_id }
    vcpu::RegisterTimeMemoryArea = "struct vcpu_register_time_memory_area" { addr }
    version::ExtraVersion = "xen_extraversion_t" {}
    version::CapabilitiesInfo = "xen_capabilities_info_t" {}
    version::ChangesetInfo = "xen_changeset_info_t" {}
    version::CommandLine = "xen_commandline_t" {}
    version::DomainHandle = "xen_domain_handle_t" {}
    version::CompileInfo = "struct xen_compile_info" { compiler, compile_by, compile_domain, compile_date }
    version::PlatformParameters = "struct xen_platform_parameters" { virt_start }
    version::FeatureInfo = "struct xen_feature_info" { submap_idx, submap }
    version::BuildId = "struct xen_build_id" { len }
    xen::MmuextOp = "struct mmuext_op" { cmd, arg1, arg2 }
    xen::MmuUpdate = "struct mmu_update" { ptr, val }
    xen::MulticallEntry = "struct multicall_entry" { op, result, args }
    xen::VcpuTimeInfo = "struct vcpu_time_info" {
        version, pad0, tsc_timestamp, system_time, tsc_to_system_mul, tsc_shift, flags, pad1,
    }
    xen::ArchVcpuInfo = "struct arch_vcpu_info" { cr2, pad }
    xen::VcpuInfo = "struct vcpu_info" { evtchn_upcall_pending, evtchn_upcall_mask, evtchn_pending_sel, arch, time }
    xen::ArchSharedInfo = "struct arch_shared_info" {
        max_pfn, pfn_to_mfn_frame_list_list, nmi_reason, p2m_cr3, p2m_vaddr, p2m_generation,
    }
    xen::SharedInfo = "struct shared_info" {
        vcpu_info, evtchn_pending, evtchn_mask, wc_version, wc_sec, wc_nsec, wc_sec_hi, arch,
    }
    pv_vcpu::TrapInfo = "struct trap_info" { vector, flags, cs, address }
    pv_vcpu::CpuUserRegs = "struct cpu_user_regs" {
        r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, error_code, entry_vector, rip, cs,
        saved_upcall_mask, rflags, rsp, ss, es, ds, fs, gs,
    }
    pv_vcpu::VcpuGuestContext = "struct vcpu_guest_context" {
        fpu_ctxt, flags, user_regs, trap_ctxt, ldt_base, ldt_ents, gdt_frames, gdt_ents, kernel_ss, kernel_sp, ctrlreg,
        debugreg, event_callback_eip, failsafe_callback_eip, syscall_callback_eip, vm_assist, fs_base, gs_base_kernel,
        gs_base_user,
    }
    pv_vcpu::IretContext = "struct iret_context" { rax, r11, rcx, flags, rip, cs, rflags, rsp, ss }
    xen::XenctlBitmap = "struct xenctl_bitmap" { bitmap, nr_bits }
    xs_wire::SockMsg = "struct xsd_sockmsg" { kind = "type", req_id, tx_id, len }
    xs_wire::DomainInterface = "struct xenstore_domain_interface" {
        req, rsp, req_cons, req_prod, rsp_cons, rsp_prod, server_features, connection, error,
    }
}
