// Command archive packs a folder into a .tar.gz or .zip that depends on nothing but the folder's content and the time given: the
// same content gives the same bytes on every machine. package.sh calls it.
//
//	archive -time UNIX-SECONDS -out FILE DIR
//
// DIR's last name becomes the folder inside. Files that may be run, and .exe files, get mode 0755, all others 0644; owners, links
// and other times are left out. Symbolic links and special files are refused.
package main
