//! Loader and programs on the real kernel; needs root.

use std::os::fd::AsFd as _;

use lanrage_bench_bpf::{Alu, Assembler, Error, Map, Program, Reg, Size, xdp};
use lanrage_lab::{Lab, LinkSpec};

#[test]
fn maps_hold_what_is_written() {
    let map = Map::array(16, 100_000).unwrap();
    let values: Vec<u8> =
        (0..100_000u64).flat_map(|n| [n, !n]).flat_map(u64::to_ne_bytes).collect();
    map.fill(&values).unwrap();
    for index in [0u32, 65_535, 65_536, 99_999] {
        assert_eq!(map.read(index).unwrap(), values[index as usize * 16..][..16]);
    }
    map.write(7, &[1; 16]).unwrap();
    assert_eq!(map.read(7).unwrap(), [1; 16]);
    assert!(matches!(map.read(100_000), Err(Error::Refused { .. })));
}

#[test]
fn the_verifier_says_why() {
    let mut asm = Assembler::new();
    asm.load(Size::Double, Reg(0), Reg(3), 0);
    asm.exit();
    let Err(Error::Verifier { log, .. }) = Program::load(&asm.finish()) else {
        panic!("a read through no pointer was accepted")
    };
    assert!(log.contains("R3 !read_ok"), "{log}");
}

/// Counts its runs in a map: so does each injected frame, exactly.
#[test]
fn injected_frames_run_the_program() {
    let map = Map::array(8, 1).unwrap();
    let mut asm = Assembler::new();
    asm.load_map_value(Reg(1), &map, 0);
    asm.alu_imm(Alu::Move, Reg(2), 1);
    asm.atomic_add(Reg(1), 0, Reg(2));
    asm.exit_with(xdp::DROP);
    let program = Program::load(&asm.finish()).unwrap();
    program.inject(&[0; 64], 1000, 32).unwrap();
    assert_eq!(map.read(0).unwrap(), 1000u64.to_ne_bytes());
}

#[test]
fn a_program_holds_its_interface_until_dropped() {
    let lab = Lab::new().unwrap();
    let host = lab.host("a", LinkSpec::direct()).unwrap();
    host.enter(|| {
        let interface = rustix::net::netdevice::name_to_index(
            rustix::net::socket(
                rustix::net::AddressFamily::INET,
                rustix::net::SocketType::DGRAM,
                None,
            )
            .unwrap()
            .as_fd(),
            "eth0",
        )
        .unwrap();
        let mut asm = Assembler::new();
        asm.exit_with(xdp::PASS);
        let program = Program::load(&asm.finish()).unwrap();
        let attached = program.attach(interface).unwrap();
        assert!(program.attach(interface).is_err(), "the place is taken");
        drop(attached);
        drop(program.attach(interface).unwrap());
    })
    .unwrap();
}
