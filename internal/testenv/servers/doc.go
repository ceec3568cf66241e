// Package servers starts real PostgreSQL and MariaDB servers for tests: on a free port of the loopback interface and on a
// socket, with their data in a temporary folder, as the user that each insists on when the tests run as root. A test process
// has at most one of each, shared by its tests, stopped and removed by Main.
//
// It finds the programs that are installed and installs nothing; install.sh beside it does that on Debian.
package servers
