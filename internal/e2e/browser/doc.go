// Package browser holds the scenarios of the account pages in a real browser, with a real relay and the real fairlead program. Test
// files only. They run with FAIRLEAD_TEST_BROWSER set: make browser. With FAIRLEAD_BROWSER_SHOTS set to a folder, each page is
// photographed into it.
package browser
