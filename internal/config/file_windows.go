package config

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

func openFile(path string) (*os.File, error) { return os.Open(path) }

// everybody holds groups to which ordinary accounts of the host or the domain belong.
var everybody = []windows.WELL_KNOWN_SID_TYPE{
	windows.WinWorldSid, windows.WinAnonymousSid, windows.WinBuiltinUsersSid, windows.WinAuthenticatedUserSid,
	windows.WinInteractiveSid, windows.WinNetworkSid, windows.WinBuiltinGuestsSid, windows.WinAccountDomainUsersSid,
}

const (
	readRights  = windows.FILE_READ_DATA | windows.GENERIC_READ | windows.GENERIC_ALL
	writeRights = windows.FILE_WRITE_DATA | windows.FILE_APPEND_DATA | windows.DELETE | windows.WRITE_DAC |
		windows.WRITE_OWNER | windows.GENERIC_WRITE | windows.GENERIC_ALL
	fileDeleteChild = 0x40 // on a folder: delete any file in it

	aceInheritOnly   = 0x08
	aceAccessAllowed = 0x00
)

// trustedInstaller owns files of Windows itself.
const trustedInstaller = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"

func checkFile(f *os.File, _ os.FileInfo, isSecret bool) error {
	rights := windows.ACCESS_MASK(writeRights)
	if isSecret {
		rights |= readRights
	}
	sd, err := windows.GetSecurityInfo(windows.Handle(f.Fd()), windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("read its access list: %w", err)
	}
	return checkACL(sd, rights, f.Name(), true)
}

func checkFolder(dir string) error {
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("read its access list: %w", err)
	}
	return checkACL(sd, windows.DELETE|windows.WRITE_DAC|windows.WRITE_OWNER|fileDeleteChild|windows.GENERIC_ALL, dir, false)
}

func checkACL(sd *windows.SECURITY_DESCRIPTOR, rights windows.ACCESS_MASK, name string, owned bool) error {
	if owned {
		owner, _, err := sd.Owner()
		if err != nil {
			return fmt.Errorf("read its owner: %w", err)
		}
		if !trustedOwner(owner) {
			return fmt.Errorf("owner is %s, neither Administrators nor the account that runs this program; run: icacls %q /setowner Administrators", owner, name)
		}
	}
	acl, _, err := sd.DACL()
	if err != nil || acl == nil {
		return fmt.Errorf("it has no access list, so everyone may change it; run: icacls %q /reset", name)
	}
	for i := range uint32(acl.AceCount) {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(acl, i, &ace); err != nil {
			return fmt.Errorf("read its access list: %w", err)
		}
		if ace.Header.AceType != aceAccessAllowed || ace.Header.AceFlags&aceInheritOnly != 0 || ace.Mask&rights == 0 {
			continue
		}
		sid := (*windows.SID)(unsafe.Pointer(&ace.SidStart))
		for _, known := range everybody {
			if sid.IsWellKnown(known) {
				return fmt.Errorf(`%s may change or read it; run: icacls %q /inheritance:r /grant:r Administrators:F SYSTEM:F "%%USERNAME%%":R`, sid, name)
			}
		}
	}
	return nil
}

func trustedOwner(owner *windows.SID) bool {
	if owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.IsWellKnown(windows.WinLocalSystemSid) ||
		owner.String() == trustedInstaller {
		return true
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	return err == nil && owner.Equals(user.User.Sid)
}
