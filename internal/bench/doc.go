// Package bench measures the data path: Fairlead as people run it (the built programs, with audit and policy on), against
// the direct way, against bare two-hop pairs that bound what two hops can do, and against peers that are at hand.
//
// All systems run at the same time and are loaded in turn, figure by figure and repetition by repetition (A, B, C, A, B,
// C), so that slow phases of the machine fall on all alike. Every hop is a process of its own, so that the operating
// system accounts its CPU time. Medians, ranges and ratios are printed; each raw value goes into a JSON file.
//
// It never invents a figure: what could not be measured is printed as such, with the reason. It is no part of the product,
// and the only package beside the test environments that knows both halves: it enrols many agents and runs them in one
// process.
package bench
