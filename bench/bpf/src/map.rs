//! Array maps: values of one size, by index.

use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::call::{
    Attribute, Error, MAP_CREATE, MAP_LOOKUP, MAP_UPDATE, MAP_UPDATE_BATCH, address, address_mut,
    bpf, bpf_descriptor, refused,
};

const TYPE_ARRAY: u32 = 2;
/// Indices written at once.
const BATCH: usize = 65_536;

/// An array that programs and this process share. The kernel keeps values at multiples of 8 bytes,
/// and so must the caller: a value's size is a multiple of 8.
#[derive(Debug)]
pub struct Map {
    descriptor: OwnedFd,
    value_size: usize,
}

#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

// SAFETY: the head of `union bpf_attr` for BPF_MAP_CREATE; no address in it.
unsafe impl Attribute for Create {}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

// SAFETY: the layout for BPF_MAP_*_ELEM; `key` is the address of a u32 and `value` of as many bytes
// as the map's values have, both alive and, for a look-up, writable: see the two uses below.
unsafe impl Attribute for Element {}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

// SAFETY: the layout for BPF_MAP_UPDATE_BATCH; `keys` and `values` are the addresses of `count` keys
// and values, alive during the call: see the one use below.
unsafe impl Attribute for Batch {}

impl Map {
    /// An array of zeros.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: not root, or no memory.
    ///
    /// # Panics
    ///
    /// If `value_size` is no multiple of 8, or either size needs more than 32 bits.
    pub fn array(value_size: usize, entries: usize) -> Result<Self, Error> {
        assert!(value_size.is_multiple_of(8), "values of {value_size} bytes");
        let mut create = Create {
            map_type: TYPE_ARRAY,
            key_size: 4,
            value_size: u32::try_from(value_size).expect("a small value"),
            max_entries: u32::try_from(entries).expect("a map of few entries"),
            flags: 0,
        };
        let descriptor =
            bpf_descriptor(MAP_CREATE, &mut create).map_err(refused("making a map"))?;
        Ok(Self { descriptor, value_size })
    }

    /// Reads one value.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: no such index.
    pub fn read(&self, index: u32) -> Result<Vec<u8>, Error> {
        let mut value = vec![0; self.value_size];
        let key = [index];
        let mut element = self.element(&key, address_mut(&mut value));
        bpf(MAP_LOOKUP, &mut element).map_err(refused("reading a map"))?;
        Ok(value)
    }

    /// Writes one value.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: no such index.
    ///
    /// # Panics
    ///
    /// If the value is not as long as the map's values.
    pub fn write(&self, index: u32, value: &[u8]) -> Result<(), Error> {
        assert_eq!(value.len(), self.value_size, "the size of a value");
        let key = [index];
        let mut element = self.element(&key, address(value));
        bpf(MAP_UPDATE, &mut element).map_err(refused("writing a map"))?;
        Ok(())
    }

    /// Writes values from index 0 on.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: more values than the map has entries.
    ///
    /// # Panics
    ///
    /// If `values` is not whole values.
    pub fn fill(&self, values: &[u8]) -> Result<(), Error> {
        assert!(values.len().is_multiple_of(self.value_size), "whole values");
        let mut first = 0u32;
        for chunk in values.chunks(BATCH * self.value_size) {
            let count = (chunk.len() / self.value_size) as u32;
            let keys: Vec<u32> = (first..first + count).collect();
            let mut batch = Batch {
                in_batch: 0,
                out_batch: 0,
                keys: address(&keys),
                values: address(chunk),
                count,
                map: self.descriptor() as u32,
                element_flags: 0,
                flags: 0,
            };
            bpf(MAP_UPDATE_BATCH, &mut batch).map_err(refused("filling a map"))?;
            first += count;
        }
        Ok(())
    }

    fn element(&self, key: &[u32; 1], value: u64) -> Element {
        Element { map: self.descriptor() as u32, padding: 0, key: address(key), value, flags: 0 }
    }

    pub(crate) fn descriptor(&self) -> i32 {
        self.descriptor.as_raw_fd()
    }
}
