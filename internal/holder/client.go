// SPDX-License-Identifier: Apache-2.0

package holder

import (
	"context"
	"errors"
)

var errSkeleton = errors.New("not built yet")

// Client is the agent's connection to the holder.
type Client struct{ lost chan struct{} }

// Serve until the context ends.
func Serve(ctx context.Context, c Config) error { return errSkeleton }

// Dial the holder that runs.
func Dial(ctx context.Context, control string) (*Client, error) { return nil, errSkeleton }

// Start connects to the holder that runs, or starts `exe holder …`, which survives the caller.
func Start(ctx context.Context, exe string, c Config) (*Client, error) { return nil, errSkeleton }

// Listeners are all that the holder kept when the client connected. The caller owns their FDs; a second call has none.
func (c *Client) Listeners() []Kept { return nil }

// Next is a listener that a runtime hands over now. The caller owns its FD.
func (c *Client) Next(ctx context.Context) (Kept, error) { return Kept{}, errSkeleton }

// Keep a duplicate of k.FD, which stays the caller's. A listener that is kept already has its old id.
func (c *Client) Keep(k Kept) (id uint64, err error) { return 0, errSkeleton }

// Drop the holder's duplicate.
func (c *Client) Drop(id uint64) error { return errSkeleton }

// Refused is what the holder refused before this agent came. The holder forgets it when this is first called.
func (c *Client) Refused() []Refused { return nil }

// Agents that the holder has had before this one.
func (c *Client) Agents() int { return 0 }

// Unclean tells that the last agent vanished without Close: it may have taken notifications along.
func (c *Client) Unclean() bool { return false }

// Lost is closed when the holder has died or has turned to a newer agent; Err says which.
func (c *Client) Lost() <-chan struct{} { return c.lost }

// Err is why the client was lost, ErrLost or ErrReplaced; nil while it is not.
func (c *Client) Err() error { return nil }

// Close says goodbye to the holder.
func (c *Client) Close() error { return nil }

// Same tells whether two descriptors of this process are one listener.
func Same(a, b int) bool { return false }
