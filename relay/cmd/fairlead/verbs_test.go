package main

import "testing"

// What comes with another action does not leave a role alone, and nobody is told that it did.
func TestAnActionThatComesWithAnotherIsNotRemovedAlone(t *testing.T) {
	r := setup(t)
	run("roles", "create", "maker", "--action", "connections.manage", "--action", "teams.edit").want(t, 0, "", "role maker (rol_1) is made")
	was := r.LastBody()
	run("roles", "update", "maker", "--remove", "connections.delete").want(t, 64, "", "the role holds connections.manage, which holds it")
	if r.LastBody() != was {
		t.Error("something was changed")
	}
	run("roles", "update", "maker", "--remove", "connections.manage", "--add", "connections.create").want(t, 0, "teams.edit\nconnections.create\n", "")
	run("roles", "update", "maker", "--remove", "connections.delete").want(t, 0, "teams.edit\nconnections.create\n", "")
	run("roles", "update", "maker", "--remove", "teams.edit").want(t, 0, "connections.create\n", "")
}
