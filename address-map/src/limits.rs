//! Every bound of the address map and of the frames around it, in one place, each with its unit.

/// Longest name, in bytes.
pub const NAME_MAX: usize = 255;
/// Longest path and longest symlink target, in bytes.
pub const PATH_MAX: usize = 4096;
/// Longest name of an extended attribute, in bytes (as Linux).
pub const XATTR_NAME_MAX: usize = 255;
/// Largest value of an extended attribute, in bytes (as Linux).
pub const XATTR_VALUE_MAX: usize = 65536;
/// Largest list of attribute names of one inode, in bytes (as Linux).
pub const XATTR_LIST_MAX: usize = 65536;
/// Most hard links to one inode (as ext4).
pub const LINK_MAX: u32 = 65000;
/// Largest file, in bytes.
pub const FILE_SIZE_MAX: u64 = i64::MAX as u64;
/// Deepest directory; deeper trees cannot be named within [`PATH_MAX`] but can be built step by step.
pub const DEPTH_MAX: usize = 65536;
/// Most shares injected into one tenant; slots are 16 bits and 0 is the tenant's own tree.
pub const SLOTS_MAX: u16 = u16::MAX;

/// Largest file of an object store whose bytes are kept in the map, in bytes.
pub const SMALL_FILE_MAX: usize = 16 * 1024;

/// How often somebody who writes a file from its beginning on says how far it has come, in bytes.
pub const WROTE_EVERY: u64 = 8 * 1024 * 1024;

/// Largest frame between a VMDS and the controller, in bytes. Room for one attribute of [`XATTR_VALUE_MAX`].
pub const FRAME_MAX: usize = 96 * 1024;
/// Target size of one page of a directory listing, in bytes of frame.
pub const LIST_PAGE_BYTES: usize = 56 * 1024;
/// Most requests a VMDS may have in flight at its controller.
pub const INFLIGHT_MAX: usize = 1024;
/// Most stale items named in one invalidation frame; more become "forget everything of this slot".
pub const STALE_ITEMS_MAX: usize = 256;
