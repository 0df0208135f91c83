package cuda

// Ptr is a device address.
type Ptr uint64
