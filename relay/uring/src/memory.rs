//! Memory that outlives the process: words in a memfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat,
    ftruncate, memfd_create,
};

/// Words that every process with the descriptor shares. Mapped for the rest of the process's life:
/// a relay has one such memory of each kind.
#[derive(Debug)]
pub struct SharedMemory {
    file: OwnedFd,
    words: &'static [AtomicU64],
}

impl SharedMemory {
    /// `words` zero words, 1 or more, which are in memory from here on. `name` is what
    /// `/proc/*/maps` shows.
    ///
    /// # Errors
    ///
    /// What the kernel refused: ENOSPC or ENOMEM if there is not as much memory.
    pub fn create(name: &str, words: usize) -> io::Result<Self> {
        let len = words.checked_mul(size_of::<u64>()).ok_or(io::ErrorKind::OutOfMemory)?;
        let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        // ENOMEM for what the machine could never hold (Documentation/mm/overcommit-accounting.rst).
        ftruncate(&file, len as u64)?;
        // Unlike a touched page for which there is no memory (SIGBUS), this says so.
        fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Self::map(file, len)
    }

    /// The memory of another process's [`SharedMemory`].
    ///
    /// # Errors
    ///
    /// It is not sealed against shrinking, so that touching it could kill this process; or what the
    /// kernel refused.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        // Fails for what is no memfd.
        if !fcntl_get_seals(&file)?.contains(SealFlags::SHRINK) {
            return Err(io::Error::other("the memory may shrink: it is not sealed"));
        }
        let len = usize::try_from(fstat(&file)?.st_size).map_err(io::Error::other)?;
        fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
        Self::map(file, len)
    }

    /// The words, at the start of a page.
    pub fn words(&self) -> &'static [AtomicU64] {
        self.words
    }

    /// Needs a file of at least `len` bytes that cannot shrink.
    fn map(file: OwnedFd, len: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Huge pages save a TLB miss a look-up in a large table; without them it works all the same.
        // SAFETY: changes how the mapping just made is backed, not what it holds.
        unsafe { libc::madvise(base, len, libc::MADV_COLLAPSE) };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY:
        // - the mapping is aligned to a page and at least `len` bytes long; the file covers it, is sealed
        //   against shrinking and was allocated, so no access can fault unless a process that shares it
        //   punches a hole, which no relay does;
        // - it is never unmapped: 'static;
        // - any bytes are words, and in this process all get atomics alone; another that shares them is
        //   the relay that handed them over, and does the same.
        let words = unsafe { NonNull::slice_from_raw_parts(base, len / size_of::<u64>()).as_ref() };
        Ok(Self { file, words })
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn both_see_what_one_writes() {
        let one = SharedMemory::create("test", 3000).unwrap();
        assert!(one.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
        one.words()[2999].store(7, Ordering::Relaxed);
        let other = SharedMemory::open(one.as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(other.words().len(), 3000);
        assert_eq!(other.words()[2999].load(Ordering::Relaxed), 7);
        other.words()[0].store(9, Ordering::Relaxed);
        assert_eq!(one.words()[0].load(Ordering::Relaxed), 9);
    }

    #[test]
    fn what_could_shrink_is_refused() {
        let memory = SharedMemory::create("test", 1).unwrap();
        let file = File::from(memory.as_fd().try_clone_to_owned().unwrap());
        assert!(file.set_len(0).is_err(), "sealed");
        let unsealed = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
        assert!(SharedMemory::open(unsealed).is_err());
        assert!(SharedMemory::open(File::open("/dev/zero").unwrap().into()).is_err());
    }

    #[test]
    fn more_than_can_be_is_an_error() {
        assert!(SharedMemory::create("test", usize::MAX).is_err());
    }
}
