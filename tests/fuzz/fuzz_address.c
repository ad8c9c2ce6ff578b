/* Property: an address that was read is read again as itself, and fits what the queue can hold. */
#include "bh/smtp_address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum bh_path_status read_path(struct bh_slice text, struct bh_buf *address)
{
    struct bh_path path;
    const enum bh_path_status status = bh_path_parse(&text, &path);
    return status == BH_PATH_OK ? bh_path_address(&path, true, NULL, NULL, address) : status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char storage[BH_ADDRESS_MAX];
    char path[BH_ADDRESS_MAX + 2];
    char again_storage[BH_ADDRESS_MAX];
    struct bh_buf address = bh_buf(storage, sizeof(storage));
    struct bh_buf again = bh_buf(again_storage, sizeof(again_storage));
    if (read_path(bh_slice(data, size), &address) != BH_PATH_OK) {
        return 0;
    }
    struct bh_buf text = bh_buf(path, sizeof(path));
    bh_buf_put_char(&text, '<');
    bh_buf_put(&text, bh_buf_slice(&address));
    bh_buf_put_char(&text, '>');
    BH_ASSERT(read_path(bh_buf_slice(&text), &again) == BH_PATH_OK);
    BH_ASSERT(bh_slice_eq(bh_buf_slice(&address), bh_buf_slice(&again)));
    BH_ASSERT(bh_address_domain(bh_buf_slice(&address)).len > 0);
    for (size_t i = 0; i < address.len; i++) {
        BH_ASSERT((unsigned char)address.ptr[i] >= ' ' && address.ptr[i] != 127);
    }
    return 0;
}
