package daemon

import (
	"errors"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// account is the virtual account of the service: no password, no rights but its own.
func (s Service) account() string { return `NT SERVICE\` + s.Name }

func (s Service) rights(what string) error {
	if !windows.GetCurrentProcessToken().IsElevated() {
		return needRights(what, "an administrator", "run it in a terminal that was started with \"Run as administrator\"")
	}
	return nil
}

// recovery: three restarts, ever slower, and from then on the last one; forgotten after a day without failure.
var recovery = []mgr.RecoveryAction{
	{Type: mgr.ServiceRestart, Delay: 5 * time.Second},
	{Type: mgr.ServiceRestart, Delay: 15 * time.Second},
	{Type: mgr.ServiceRestart, Delay: 60 * time.Second},
}

// finish sets what kardianos/service leaves out: recovery after a crash and after an end with an error status, the
// service's own SID, and the rights on the data folder.
func (s Service) finish() (notes []string, err error) {
	m, err := mgr.Connect()
	if err != nil {
		return nil, fmt.Errorf("open the service manager: %w", err)
	}
	defer m.Disconnect()
	service, err := m.OpenService(s.Name)
	if err != nil {
		return nil, fmt.Errorf("open service: %w", err)
	}
	defer service.Close()
	// A manager that does not know a level (Wine) cannot be told: a note, not a failure.
	try := func(what string, err error) error {
		if errors.Is(err, windows.ERROR_INVALID_LEVEL) || errors.Is(err, windows.ERROR_CALL_NOT_IMPLEMENTED) {
			notes = append(notes, "this system does not support: "+what)
			return nil
		}
		if err != nil {
			return fmt.Errorf("set %s: %w", what, err)
		}
		return nil
	}
	if err := try("recovery actions", service.SetRecoveryActions(recovery, 86400)); err != nil {
		return nil, err
	}
	if err := try("recovery after an error status", service.SetRecoveryActionsOnNonCrashFailures(true)); err != nil {
		return nil, err
	}
	sid := uint32(windows.SERVICE_SID_TYPE_UNRESTRICTED)
	err = windows.ChangeServiceConfig2(service.Handle, windows.SERVICE_CONFIG_SERVICE_SID_INFO, (*byte)(unsafe.Pointer(&sid)))
	if err := try("the service SID", err); err != nil {
		return nil, err
	}
	if err := s.giveData(); err != nil {
		notes = append(notes, fmt.Sprintf("could not restrict %s to the service and administrators (%v): do so by hand", s.DataDir, err))
	}
	return append(notes, "it runs as "+s.account()+": give this account the rights on the folders that it serves"), nil
}

// giveData replaces the access list of the data folder: SYSTEM, administrators and the service, nobody else, inherited by
// what is in it.
func (s Service) giveData() error {
	own, _, _, err := windows.LookupSID("", s.account())
	if err != nil {
		return fmt.Errorf("look up %s: %w", s.account(), err)
	}
	system, err := windows.CreateWellKnownSid(windows.WinLocalSystemSid)
	if err != nil {
		return err
	}
	admins, err := windows.CreateWellKnownSid(windows.WinBuiltinAdministratorsSid)
	if err != nil {
		return err
	}
	var entries []windows.EXPLICIT_ACCESS
	for _, sid := range []*windows.SID{system, admins, own} {
		entries = append(entries, windows.EXPLICIT_ACCESS{
			AccessPermissions: windows.GENERIC_ALL, AccessMode: windows.SET_ACCESS, Inheritance: windows.SUB_CONTAINERS_AND_OBJECTS_INHERIT,
			Trustee: windows.TRUSTEE{TrusteeForm: windows.TRUSTEE_IS_SID, TrusteeType: windows.TRUSTEE_IS_UNKNOWN, TrusteeValue: windows.TrusteeValueFromSID(sid)},
		})
	}
	acl, err := windows.ACLFromEntries(entries, nil)
	if err != nil {
		return err
	}
	return windows.SetNamedSecurityInfo(s.DataDir, windows.SE_FILE_OBJECT,
		windows.DACL_SECURITY_INFORMATION|windows.PROTECTED_DACL_SECURITY_INFORMATION, nil, nil, acl, nil)
}

// Status asks the service manager. It needs no rights.
func (s Service) Status() (Status, error) {
	st := Status{Name: s.Name, State: NotInstalled}
	h, err := windows.OpenSCManager(nil, nil, windows.SC_MANAGER_CONNECT)
	if err != nil {
		return st, fmt.Errorf("open the service manager: %w", err)
	}
	m := &mgr.Mgr{Handle: h}
	defer m.Disconnect()
	name, err := windows.UTF16PtrFromString(s.Name)
	if err != nil {
		return st, fmt.Errorf("service name: %w", err)
	}
	sh, err := windows.OpenService(m.Handle, name, windows.SERVICE_QUERY_STATUS|windows.SERVICE_QUERY_CONFIG)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return st, nil
	}
	if err != nil {
		return st, fmt.Errorf("open service: %w", err)
	}
	service := &mgr.Service{Name: s.Name, Handle: sh}
	defer service.Close()
	q, err := service.Query()
	if err != nil {
		return st, fmt.Errorf("query service: %w", err)
	}
	switch q.State {
	case svc.Running:
		st.State = Running
	case svc.StartPending:
		st.State = Starting
	case svc.StopPending:
		st.State = Stopping
	default:
		st.State = Stopped
		if q.Win32ExitCode != 0 {
			st.State = Failed
			st.Note = fmt.Sprintf("last end: error %d (%d)", q.Win32ExitCode, q.ServiceSpecificExitCode)
		}
	}
	st.PID = int(q.ProcessId)
	st.User, st.Start = definition(sh)
	if q.Win32ExitCode == uint32(windows.ERROR_SERVICE_NEVER_STARTED) && st.State == Failed {
		st.State, st.Note = Stopped, "never started"
	}
	return st, nil
}

// definition gives account and command line of a service; nothing when they cannot be read. mgr.Service.Config asks for
// more, which not every system has (Wine).
func definition(service windows.Handle) (account, command string) {
	size := uint32(1 << 10)
	for {
		b := make([]uint64, (size+7)/8) // aligned
		c := (*windows.QUERY_SERVICE_CONFIG)(unsafe.Pointer(&b[0]))
		err := windows.QueryServiceConfig(service, c, uint32(len(b)*8), &size)
		if err == nil {
			return windows.UTF16PtrToString(c.ServiceStartName), windows.UTF16PtrToString(c.BinaryPathName)
		}
		if !errors.Is(err, windows.ERROR_INSUFFICIENT_BUFFER) || size <= uint32(len(b)*8) {
			return "", ""
		}
	}
}

// remains reads the command line of the service. The virtual account goes with the service.
func (s Service) remains() (remains, error) {
	st, err := s.Status()
	if err != nil || st.State == NotInstalled {
		return remains{}, err
	}
	r := remains{installed: true}
	args, err := windows.DecomposeCommandLine(st.Start)
	if err != nil {
		return r, nil // the caller asks for --data then
	}
	for i, a := range args[:max(0, len(args)-1)] {
		if a == "--data" {
			r.dataDir = args[i+1]
		}
	}
	return r, nil
}

func (s Service) removeAccount(string) error { return nil }
