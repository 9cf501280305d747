//! What differs between operating systems: the virtual NIC and what it changes around it.

#[cfg(target_os = "linux")]
pub mod linux;
