// Command fairlead-mutants changes the checks of packages one at a time and names the changes that no test notices: make mutants.
package main
