/* kv_backend.h - what the face of the key-value interface and its backends share. */
#pragma once

/* How a cursor moves: the `how` of cursor_move. */
enum kv_move { KV_FIRST, KV_LAST, KV_SEEK, KV_NEXT, KV_PREV };
