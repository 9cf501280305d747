//! Picking a back end where io_uring is refused: by seccomp filters, as containers set them.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its scene fails")]

mod rig;

use std::collections::BTreeMap;
use std::time::Duration;

use lanrage_relay_uring::probe::{BackendChoice, Cause, PREFERRED, Resolved, resolve};
use lanrage_relay_uring::{Backend, BackendKind, Options};
use rig::{Rig, echo, peer, receive};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// Runs `test` on a thread of its own where `call` fails with `errno`, as far as `rules` match.
fn refusing(call: i64, rules: Vec<SeccompRule>, errno: i32, test: impl FnOnce() + Send + 'static) {
    let filter: BpfProgram = SeccompFilter::new(
        BTreeMap::from([(call, rules)]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    )
    .unwrap()
    .try_into()
    .unwrap();
    std::thread::spawn(move || {
        seccompiler::apply_filter(&filter).unwrap();
        test();
    })
    .join()
    .unwrap();
}

fn assert_falls_back(cause: Cause, words: &[&str]) {
    let Resolved { kind, reason } = resolve(BackendChoice::Auto, &Options::default()).unwrap();
    assert_eq!(kind, BackendKind::Mmsg);
    for word in words {
        assert!(reason.contains(word), "{word:?} in {reason:?}");
    }
    let error = resolve(BackendChoice::Uring, &Options::default()).unwrap_err();
    assert_eq!(error.refusal().cause, cause);
    assert!(resolve(BackendChoice::Mmsg, &Options::default()).is_ok());

    let (mut rig, peer) = (Rig::new(kind), peer());
    peer.send_to(b"works all the same", rig.locals[0]).unwrap();
    rig.drive(&mut echo(), |counters| counters.rx_segments.get() == 1);
    assert_eq!(receive(&peer).0, b"works all the same");
}

#[test]
fn prefers_the_default_where_both_work() {
    let resolved = resolve(BackendChoice::Auto, &Options::default()).unwrap();
    assert_eq!(resolved.kind, PREFERRED);
    assert!(resolved.reason.contains("default"));
    for (choice, kind) in
        [(BackendChoice::Uring, BackendKind::Uring), (BackendChoice::Mmsg, BackendKind::Mmsg)]
    {
        assert_eq!(resolve(choice, &Options::default()).unwrap().kind, kind);
    }
}

/// Docker's default profile.
#[test]
fn setup_refused_with_eperm() {
    refusing(libc::SYS_io_uring_setup, vec![], libc::EPERM, || {
        let cause = Cause::NotPermitted { io_uring_disabled: None };
        assert_falls_back(cause, &["io_uring_setup", "recvmmsg", "seccomp", "Docker"]);
    });
}

/// Profiles that hide what they do not know.
#[test]
fn setup_refused_with_enosys() {
    refusing(libc::SYS_io_uring_setup, vec![], libc::ENOSYS, || {
        assert_falls_back(Cause::NotImplemented, &["io_uring_setup", "CONFIG_IO_URING", "seccomp"]);
    });
}

#[test]
fn setup_refused_with_einval() {
    refusing(libc::SYS_io_uring_setup, vec![], libc::EINVAL, || {
        assert_falls_back(Cause::KernelTooOld, &["io_uring_setup", "too old", "6.1"]);
    });
}

#[test]
fn setup_refused_with_enomem() {
    refusing(libc::SYS_io_uring_setup, vec![], libc::ENOMEM, || {
        assert_falls_back(Cause::OutOfMemory, &["RLIMIT_MEMLOCK"]);
    });
}

/// Seccomp is allowed to refuse a part: setup works, and using the ring does not.
#[test]
fn enter_refused_with_eperm() {
    refusing(libc::SYS_io_uring_enter, vec![], libc::EPERM, || {
        let cause = Cause::NotPermitted { io_uring_disabled: None };
        assert_falls_back(cause, &["io_uring_enter", "seccomp"]);
    });
}

/// A kernel before 5.19: IORING_REGISTER_PBUF_RING, 22, is unknown to it.
#[test]
fn buffer_ring_refused_with_einval() {
    let register_buffer_ring =
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 22).unwrap();
    let rule = SeccompRule::new(vec![register_buffer_ring]).unwrap();
    refusing(libc::SYS_io_uring_register, vec![rule], libc::EINVAL, || {
        assert_falls_back(Cause::KernelTooOld, &["buffer ring", "too old"]);
    });
}

/// A place among the thread's registered ring descriptors (opcode 20) is only an optimisation.
#[test]
fn a_ring_works_without_a_registered_descriptor() {
    let register_ring_fds =
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 20).unwrap();
    let rule = SeccompRule::new(vec![register_ring_fds]).unwrap();
    refusing(libc::SYS_io_uring_register, vec![rule], libc::EBUSY, || {
        let (mut rig, peer) = (Rig::new(BackendKind::Uring), peer());
        peer.send_to(b"x", rig.locals[0]).unwrap();
        rig.drive(&mut echo(), |counters| counters.rx_segments.get() == 1);
        assert_eq!(receive(&peer).0, b"x");
    });
}

#[test]
fn a_ring_is_closed_before_the_thread_ends() {
    let sockets = || {
        lanrage_relay_uring::bind(&["127.0.0.1:0".parse().unwrap()], 1, &Default::default())
            .unwrap()
            .remove(0)
    };
    for _ in 0..50 {
        let mut backend =
            Backend::open(BackendKind::Uring, sockets(), &Options::default()).unwrap();
        backend.turn(&mut echo(), Duration::ZERO).unwrap();
    }
}
