//! Puts programs together: one method an instruction, and labels for jumps forward.

use crate::insn::{Alu, Cond, Insn, Reg, Size, Wide};
use crate::map::Map;

/// A place to jump to, later in the program: the verifier must see the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// A program in the making.
#[derive(Debug, Default)]
pub struct Assembler {
    insns: Vec<Insn>,
    /// By label: where it stands.
    places: Vec<Option<usize>>,
    /// Jumps, and where they go.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// An empty program.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A label that [`place`](Self::place) will put somewhere.
    pub fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The label means the next instruction.
    pub fn place(&mut self, label: Label) {
        self.places[label.0] = Some(self.insns.len());
    }

    /// `dst = dst op src`
    pub fn alu(&mut self, op: Alu, dst: Reg, src: Reg) {
        self.insns.push(Insn::alu(op, dst, src));
    }

    /// `dst = dst op imm`, the immediate sign-extended.
    pub fn alu_imm(&mut self, op: Alu, dst: Reg, imm: i32) {
        self.insns.push(Insn::alu_imm(op, dst, imm));
    }

    /// `dst = bswap16(dst)`
    pub fn swap16(&mut self, dst: Reg) {
        self.insns.push(Insn::swap16(dst));
    }

    /// `dst = *(size *)(src + offset)`
    pub fn load(&mut self, size: Size, dst: Reg, src: Reg, offset: i16) {
        self.insns.push(Insn::load(size, dst, src, offset));
    }

    /// `*(size *)(dst + offset) = src`
    pub fn store(&mut self, size: Size, dst: Reg, offset: i16, src: Reg) {
        self.insns.push(Insn::store(size, dst, offset, src));
    }

    /// `*(size *)(dst + offset) = imm`
    pub fn store_imm(&mut self, size: Size, dst: Reg, offset: i16, imm: i32) {
        self.insns.push(Insn::store_imm(size, dst, offset, imm));
    }

    /// `lock *(u64 *)(dst + offset) += src`
    pub fn atomic_add(&mut self, dst: Reg, offset: i16, src: Reg) {
        self.insns.push(Insn::atomic_add(dst, offset, src));
    }

    /// `dst = map`, for a helper's argument.
    pub fn load_map(&mut self, dst: Reg, map: &Map) {
        self.insns.extend(Insn::load_wide(dst, Wide::Map, map.descriptor(), 0));
    }

    /// `dst = &map[0] + offset`, of an array map of one entry.
    pub fn load_map_value(&mut self, dst: Reg, map: &Map, offset: i32) {
        self.insns.extend(Insn::load_wide(dst, Wide::MapValue, map.descriptor(), offset));
    }

    /// `if dst cond src goto to`
    pub fn jump(&mut self, cond: Cond, dst: Reg, src: Reg, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.insns.push(Insn::jump(cond, dst, src));
    }

    /// `if dst cond imm goto to`
    pub fn jump_imm(&mut self, cond: Cond, dst: Reg, imm: i32, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.insns.push(Insn::jump_imm(cond, dst, imm));
    }

    /// `goto to`
    pub fn jump_always(&mut self, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.insns.push(Insn::jump_always());
    }

    /// `r0 = helper(r1, ...)`; see [`crate::helper`].
    pub fn call(&mut self, helper: i32) {
        self.insns.push(Insn::call(helper));
    }

    /// `return r0`
    pub fn exit(&mut self) {
        self.insns.push(Insn::exit());
    }

    /// `return imm`
    pub fn exit_with(&mut self, imm: i32) {
        self.alu_imm(Alu::Move, Reg(0), imm);
        self.exit();
    }

    /// The program, its jumps resolved.
    ///
    /// # Panics
    ///
    /// If a label was jumped to and never placed, or stands 32,768 instructions away.
    #[must_use]
    pub fn finish(mut self) -> Vec<Insn> {
        for (from, to) in self.jumps {
            let place = self.places[to.0].expect("a label that is jumped to has been placed");
            let distance = i16::try_from(place as i64 - from as i64 - 1);
            self.insns[from].offset = distance.expect("a short program");
        }
        self.insns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(insns: &[Insn]) -> Vec<String> {
        insns.iter().map(|insn| format!("{insn:?}")).collect()
    }

    /// Against what LLVM makes of the same lines (`clang -target bpf`, `llvm-objdump -d`).
    #[test]
    fn instructions_are_those_of_the_instruction_set() {
        let mut asm = Assembler::new();
        let out = asm.label();
        asm.load(Size::Word, Reg(7), Reg(1), 4);
        asm.alu(Alu::Move, Reg(6), Reg(1));
        asm.alu_imm(Alu::Add, Reg(2), -4);
        asm.jump(Cond::Greater, Reg(2), Reg(7), out);
        asm.store(Size::Double, Reg(6), 16, Reg(2));
        asm.store_imm(Size::Half, Reg(10), -2, 0x8);
        asm.atomic_add(Reg(9), 8, Reg(1));
        asm.swap16(Reg(3));
        asm.call(helper_number());
        asm.jump_imm(Cond::NotEqual, Reg(0), 0, out);
        asm.place(out);
        asm.exit_with(1);
        let expected: [(u8, u8, i16, i32); 12] = [
            (0x61, 0x17, 4, 0),
            (0xbf, 0x16, 0, 0),
            (0x07, 0x02, 0, -4),
            (0x2d, 0x72, 6, 0),
            (0x7b, 0x26, 16, 0),
            (0x6a, 0x0a, -2, 8),
            (0xdb, 0x19, 8, 0),
            (0xd7, 0x03, 0, 16),
            (0x85, 0x00, 0, 5),
            (0x55, 0x00, 0, 0),
            (0xb7, 0x00, 0, 1),
            (0x95, 0x00, 0, 0),
        ];
        let expected: Vec<String> = expected
            .iter()
            .map(|(code, registers, offset, imm)| {
                format!(
                    "Insn {{ code: {code}, registers: {registers}, offset: {offset}, imm: {imm} }}"
                )
            })
            .collect();
        assert_eq!(words(&asm.finish()), expected);
    }

    fn helper_number() -> i32 {
        crate::helper::KTIME_NS
    }
}
