//! Instructions as the kernel takes them (Documentation/bpf/standardization/instruction-set.rst).

/// A register: 0 is a call's result, 1 to 5 its arguments, 6 to 9 survive it, 10 is the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reg(pub u8);

/// Bytes of a load or store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Size {
    /// 4 bytes.
    Word = 0x00,
    /// 2 bytes.
    Half = 0x08,
    /// 1 byte.
    Byte = 0x10,
    /// 8 bytes.
    Double = 0x18,
}

/// A 64-bit operation on a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Alu {
    /// `dst += operand`
    Add = 0x00,
    /// `dst -= operand`
    Sub = 0x10,
    /// `dst |= operand`
    Or = 0x40,
    /// `dst &= operand`
    And = 0x50,
    /// `dst <<= operand`
    ShiftLeft = 0x60,
    /// `dst >>= operand`, zeros shifted in
    ShiftRight = 0x70,
    /// `dst = operand`
    Move = 0xb0,
}

/// When a jump is taken, comparing 64 bits, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cond {
    /// `dst == operand`
    Equal = 0x10,
    /// `dst > operand`
    Greater = 0x20,
    /// `dst >= operand`
    GreaterOrEqual = 0x30,
    /// `dst != operand`
    NotEqual = 0x50,
    /// `dst < operand`
    Less = 0xa0,
}

/// Numbers of kernel functions (`enum bpf_func_id`, linux/bpf.h).
pub mod helper {
    /// `bpf_map_lookup_elem(map, key) -> value or null`
    pub const MAP_LOOKUP: i32 = 1;
    /// `bpf_ktime_get_ns() -> CLOCK_MONOTONIC in nanoseconds`
    pub const KTIME_NS: i32 = 5;
    /// `bpf_redirect(interface, flags) -> XDP_REDIRECT`
    pub const REDIRECT: i32 = 23;
}

const CLASS_LD: u8 = 0x00;
const CLASS_LDX: u8 = 0x01;
const CLASS_ST: u8 = 0x02;
const CLASS_STX: u8 = 0x03;
const CLASS_JMP: u8 = 0x05;
const CLASS_ALU64: u8 = 0x07;
const MODE_MEM: u8 = 0x60;
const MODE_ATOMIC: u8 = 0xc0;
const SOURCE_REGISTER: u8 = 0x08;
const ALU_BYTE_SWAP: u8 = 0xd0;
const JMP_CALL: u8 = 0x80;
const JMP_EXIT: u8 = 0x90;

/// One instruction: `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Insn {
    code: u8,
    /// Destination in the low four bits, source in the high ones (little endian).
    registers: u8,
    pub(crate) offset: i16,
    imm: i32,
}

const _: () = assert!(size_of::<Insn>() == 8);

impl Insn {
    const fn new(code: u8, dst: Reg, src: Reg, offset: i16, imm: i32) -> Self {
        Self { code, registers: src.0 << 4 | dst.0, offset, imm }
    }

    pub(crate) const fn alu(op: Alu, dst: Reg, src: Reg) -> Self {
        Self::new(CLASS_ALU64 | SOURCE_REGISTER | op as u8, dst, src, 0, 0)
    }

    pub(crate) const fn alu_imm(op: Alu, dst: Reg, imm: i32) -> Self {
        Self::new(CLASS_ALU64 | op as u8, dst, Reg(0), 0, imm)
    }

    /// Swaps the low 16 bits' bytes and clears the rest.
    pub(crate) const fn swap16(dst: Reg) -> Self {
        Self::new(CLASS_ALU64 | ALU_BYTE_SWAP, dst, Reg(0), 0, 16)
    }

    pub(crate) const fn load(size: Size, dst: Reg, src: Reg, offset: i16) -> Self {
        Self::new(CLASS_LDX | MODE_MEM | size as u8, dst, src, offset, 0)
    }

    pub(crate) const fn store(size: Size, dst: Reg, offset: i16, src: Reg) -> Self {
        Self::new(CLASS_STX | MODE_MEM | size as u8, dst, src, offset, 0)
    }

    pub(crate) const fn store_imm(size: Size, dst: Reg, offset: i16, imm: i32) -> Self {
        Self::new(CLASS_ST | MODE_MEM | size as u8, dst, Reg(0), offset, imm)
    }

    /// `lock *(u64 *)(dst + offset) += src`
    pub(crate) const fn atomic_add(dst: Reg, offset: i16, src: Reg) -> Self {
        Self::new(CLASS_STX | MODE_ATOMIC | Size::Double as u8, dst, src, offset, 0)
    }

    pub(crate) const fn jump(cond: Cond, dst: Reg, src: Reg) -> Self {
        Self::new(CLASS_JMP | SOURCE_REGISTER | cond as u8, dst, src, 0, 0)
    }

    pub(crate) const fn jump_imm(cond: Cond, dst: Reg, imm: i32) -> Self {
        Self::new(CLASS_JMP | cond as u8, dst, Reg(0), 0, imm)
    }

    pub(crate) const fn jump_always() -> Self {
        Self::new(CLASS_JMP, Reg(0), Reg(0), 0, 0)
    }

    pub(crate) const fn call(helper: i32) -> Self {
        Self::new(CLASS_JMP | JMP_CALL, Reg(0), Reg(0), 0, helper)
    }

    pub(crate) const fn exit() -> Self {
        Self::new(CLASS_JMP | JMP_EXIT, Reg(0), Reg(0), 0, 0)
    }

    /// A 64-bit load of what `kind` says: two instructions.
    pub(crate) const fn load_wide(dst: Reg, kind: Wide, low: i32, high: i32) -> [Self; 2] {
        let code = CLASS_LD | Size::Double as u8;
        [Self::new(code, dst, Reg(kind as u8), 0, low), Self::new(0, Reg(0), Reg(0), 0, high)]
    }
}

/// What a wide load's immediate means (`BPF_PSEUDO_*`, linux/bpf.h).
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(crate) enum Wide {
    /// The map with this descriptor.
    Map = 1,
    /// The address of the value of an array map of one entry, plus the second immediate.
    MapValue = 2,
}
