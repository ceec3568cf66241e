// Package wan emulates a wide-area line between two network namespaces of this machine: delay, bandwidth with a drop-tail
// queue, random loss, and nothing at all. It stands for netem where the kernel has none, and wants root on Linux.
//
// Isolate runs the program again in a network namespace of its own, the near end; Open makes the far end and the line. Each
// end has one TUN device, and a process of ours carries packet by packet from one to the other, by the clock: what a line
// does to packets is decided by pipe, which has no clock and no device, so that a test can hold it to its numbers.
//
// Nothing has a name and nothing is left behind: namespaces and devices live as long as the processes that hold them, and
// those end with the program that started them, however that ends.
//
// It is for the bench and for tests alone, and no part of the product.
package wan
