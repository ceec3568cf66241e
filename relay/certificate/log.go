package certificate

import (
	"context"
	"log/slog"

	"go.uber.org/zap/zapcore"
)

// core gives the ACME client's log to the relay's. What it tells at info is detail here: that a certificate came or could not be had is
// what an operator wants to know.
type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func (c *core) level(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l >= zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

func (c *core) Enabled(l zapcore.Level) bool {
	return l >= zapcore.InfoLevel && c.log.Enabled(context.Background(), max(c.level(l), slog.LevelInfo)) // Write tells which of info are
}

func (c *core) With(f []zapcore.Field) zapcore.Core {
	return &core{c.log, append(c.fields[:len(c.fields):len(c.fields)], f...)}
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *core) Write(e zapcore.Entry, f []zapcore.Field) error {
	m := zapcore.NewMapObjectEncoder()
	for _, one := range append(c.fields[:len(c.fields):len(c.fields)], f...) {
		one.AddTo(m)
	}
	args := []any{"of", "acme"}
	for k, v := range m.Fields {
		args = append(args, k, v)
	}
	level := c.level(e.Level)
	if e.Message == "certificate obtained successfully" || e.Message == "certificate renewed successfully" {
		level = slog.LevelInfo
	}
	c.log.Log(context.Background(), level, e.Message, args...)
	return nil
}

func (c *core) Sync() error { return nil }
