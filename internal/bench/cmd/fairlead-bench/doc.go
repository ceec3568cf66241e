// Command fairlead-bench measures Fairlead's data path beside baselines and peers, and prints one table: see package
// bench. It starts itself again for the target and the hops of the baselines.
package main
