"""Capability registers of IOMMUs, as the kernel hands them out.

Intel VT-d specification 11.4.2 and 11.4.3; Arm SMMUv3 specification 6.3.1 to 6.3.6, of which the
kernel's interface names the fields that may be used; AMD IOMMU specification (48882), 0x30, 0x1A0.
"""

from __future__ import annotations

from uspace_drv.registers import Register, bit, field


class VtdCapability(Register, width=64):
    """CAP_REG."""

    esrtps = bit(63, "setting the root table pointer invalidates all")
    esirtps = bit(62, "setting the interrupt remapping table pointer invalidates all")
    ecmds = bit(61, "enhanced commands")
    fs5lp = bit(60, "first stage with 5 levels")
    pi = bit(59, "posted interrupts")
    fs1gp = bit(56, "first stage with pages of 1 GiB")
    drd = bit(55, "drains reads")
    dwd = bit(54, "drains writes")
    mamv = field(53, 48, "maximum address mask of an invalidation")
    nfr = field(47, 40, "fault recording registers, less one")
    psi = bit(39, "invalidates pages selectively")
    sslps = field(37, 34, "second stage: bit 0 pages of 2 MiB, bit 1 of 1 GiB")
    fro = field(33, 24, "offset of the fault recording registers, in units of 16 bytes")
    zlr = bit(22, "reads of no bytes from write-only pages")
    mgaw = field(21, 16, "width of addresses of devices, less one")
    sagaw = field(12, 8, "second stage: bit 1 three levels, bit 2 four, bit 3 five")
    cm = bit(7, "caches what is not present: an emulated IOMMU")
    phmr = bit(6, "protected high memory")
    plmr = bit(5, "protected low memory")
    rwbf = bit(4, "write buffers must be flushed")
    nd = field(2, 0, "2 to the power of 4 + 2 * nd domains")


class VtdExtendedCapability(Register, width=64):
    """ECAP_REG."""

    pms = bit(51, "performance monitoring")
    rps = bit(49, "PASID of requests without one")
    smpwc = bit(48, "page walks snoop in scalable mode")
    fsts = bit(47, "first-stage translation")
    ssts = bit(46, "second-stage translation")
    ssads = bit(45, "second stage keeps accessed and dirty bits")
    smts = bit(43, "scalable mode")
    pds = bit(42, "drains page requests")
    dit = bit(41, "throttles invalidations of devices")
    pasid = bit(40)
    pss = field(39, 35, "width of PASIDs, less one")
    eafs = bit(34, "extended accessed flag")
    nwfs = bit(33, "no-write flag")
    srs = bit(31, "requests for supervisor pages")
    ers = bit(30, "requests for execution")
    prs = bit(29, "page requests")
    nest = bit(26, "nested translation")
    mts = bit(25, "memory types")
    mhmv = field(23, 20, "maximum handle mask")
    iro = field(17, 8, "offset of the IOTLB registers, in units of 16 bytes")
    sc = bit(7, "snoop control")
    pt = bit(6, "pass-through")
    eim = bit(4, "x2APIC")
    ir = bit(3, "interrupt remapping")
    dt = bit(2, "device TLBs (ATS)")
    qi = bit(1, "queued invalidation")
    c = bit(0, "page walks are coherent")


class SmmuIdr0(Register):
    """SMMU_IDR0."""

    st_level = field(28, 27, "1: two-level stream tables")
    term_model = bit(26, "1: faults abort")
    stall_model = field(25, 24, "0: stalls and terminates, 1: terminates only, 2: stalls only")
    ttendian = field(22, 21, "0: both, 2: little, 3: big endian tables")
    cd2l = bit(19, "two-level context descriptor tables")
    asid16 = bit(12, "16 bits of ASID")
    ttf = field(3, 2, "bit 1: AArch64 tables")


class SmmuIdr1(Register):
    """SMMU_IDR1."""

    ssidsize = field(10, 6, "bits of substream id")
    sidsize = field(5, 0, "bits of stream id")


class SmmuIdr3(Register):
    """SMMU_IDR3."""

    bbml = field(12, 11, "level of break-before-make")
    ril = bit(10, "range invalidation")


class SmmuIdr5(Register):
    """SMMU_IDR5."""

    vax = field(11, 10, "1: virtual addresses of 52 bits")
    ds = bit(7, "52 bits with pages of 4 and 16 KiB")
    gran64k = bit(6)
    gran16k = bit(5)
    gran4k = bit(4)


class AmdExtendedFeature(Register, width=64):
    """EFR."""

    snp = bit(63, "secure nested paging")
    hd = bit(52, "keeps dirty bits")
    eph = bit(50, "enhanced handling of page requests")
    ha = bit(49, "keeps accessed bits")
    gio = bit(48, "guest I/O protection")
    pasmax = field(36, 32, "width of PASIDs, less one")
    gam = field(23, 21, "guest virtual APIC; bit 0")
    glx = field(15, 14, "levels of the guest's CR3 table, less one")
    gats = field(13, 12, "guest address translation: 0 four levels, 1 five")
    hats = field(11, 10, "host address translation: 0 four levels, 1 five, 2 six")
    pc = bit(9, "performance counters")
    he = bit(8, "hardware error registers")
    ga = bit(7, "guest virtual APIC")
    ia = bit(6, "INVALIDATE_IOMMU_ALL")
    gt = bit(4, "guest translation")
    nx = bit(3, "no-execute")
    xt = bit(2, "x2APIC")
    ppr = bit(1, "peripheral page requests")
    pref = bit(0, "prefetch")


class AmdExtendedFeature2(Register, width=64):
    """EFR2."""

    snp_page_mode0 = bit(13, "host tables of mode 0 with SNP")
    ht_range_ignore = bit(11, "the HyperTransport range is ordinary memory")
    num_int_remap = field(9, 8, "1: 2048 interrupts can be remapped for a device")
    snp_avic = field(7, 5)
    gcr3_trp_mode = bit(3, "the guest's CR3 table is given by guest physical address")
    sev_snp_io = bit(1)
