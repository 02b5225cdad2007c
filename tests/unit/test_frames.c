// Frames: what goes in comes out, in pieces of any size; what is damaged is refused.
#include "server/frames.h"

#include "core/base/splitmix.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static atedm_buffer new_buffer(void)
{
    atedm_buffer buffer;
    atedm_buffer_init(&buffer, ATEDM_FRAME_MAX);
    return buffer;
}

static atedm_request make_request(const char *negative)
{
    return (atedm_request){.prompt = strdup("a red \xc3\xa4pple"),
                           .negative_prompt = negative ? strdup(negative) : NULL,
                           .width = 64,
                           .height = 32,
                           .steps = 7,
                           .seed = UINT64_C(1) << 62,
                           .deadline_s = NAN};
}

static void expect_request(const atedm_request *got, const atedm_request *expected)
{
    cr_expect_str_eq(got->prompt, expected->prompt);
    cr_expect_eq(!got->negative_prompt, !expected->negative_prompt);
    if (got->negative_prompt)
        cr_expect_str_eq(got->negative_prompt, expected->negative_prompt);
    cr_expect_eq(got->width, 64);
    cr_expect_eq(got->seed, UINT64_C(1) << 62);
    cr_expect(isnan(got->deadline_s));
}

static atedm_worker_message make_result(void)
{
    atedm_worker_result *result = calloc(1, sizeof *result);
    result->n_images = 2;
    result->images = calloc(2, sizeof *result->images);
    for (size_t i = 0; i < 2; i++) {
        result->images[i] = (atedm_worker_image){.png = malloc(5 + i), .size = 5 + i};
        memset(result->images[i].png, 'a' + (int)i, 5 + i);
    }
    result->report.evaluations = 12;
    return (atedm_worker_message){.type = ATEDM_WORKER_DONE, .job = 3, .result = result};
}

static void expect_result(const atedm_worker_message *got)
{
    cr_assert_not_null(got->result);
    cr_expect_eq(got->result->n_images, 2);
    cr_expect_eq(got->result->report.evaluations, 12);
    for (size_t i = 0; i < 2; i++) {
        cr_expect_eq(got->result->images[i].size, 5 + i);
        cr_expect_eq(got->result->images[i].png[4], 'a' + (char)i);
    }
}

static atedm_worker_message make_preview(void)
{
    atedm_worker_message message = {.type = ATEDM_WORKER_PREVIEW, .job = 4, .step = 17};
    message.image = (atedm_worker_image){.png = strdup("not a png"), .size = 9};
    return message;
}

static void expect_message(const atedm_worker_message *got)
{
    if (got->type == ATEDM_WORKER_DONE) {
        expect_result(got);
        cr_expect_null(got->image.png);
        return;
    }
    cr_assert_eq(got->type, ATEDM_WORKER_PREVIEW);
    cr_expect_eq(got->step, 17);
    cr_assert_eq(got->image.size, 9);
    cr_expect(!memcmp(got->image.png, "not a png", 9));
    cr_expect_null(got->result);
}

// A frame of each type.
static atedm_buffer make_stream(void)
{
    atedm_buffer stream = new_buffer();
    atedm_request with = make_request("blurry"), without = make_request(NULL);
    atedm_worker_message done = make_result(), preview = make_preview();
    cr_assert_eq(atedm_frame_put_hello(&stream), ATEDM_OK);
    cr_assert_eq(atedm_frame_put_submit(&stream, 1, &with), ATEDM_OK);
    cr_assert_eq(atedm_frame_put_submit(&stream, 2, &without), ATEDM_OK);
    cr_assert_eq(atedm_frame_put_cancel(&stream, 9), ATEDM_OK);
    cr_assert_eq(atedm_frame_put_watch(&stream, 10, true), ATEDM_OK);
    cr_assert_eq(atedm_frame_put_watch(&stream, 11, false), ATEDM_OK);
    cr_assert_eq(atedm_frame_put_message(&stream, &preview), ATEDM_OK);
    cr_assert_eq(atedm_frame_put_message(&stream, &done), ATEDM_OK);
    atedm_request_finish(&with);
    atedm_request_finish(&without);
    atedm_worker_message_finish(&done);
    atedm_worker_message_finish(&preview);
    return stream;
}

// Checks frame `index` of the stream.
static void expect_frame(const atedm_frame *frame, int index)
{
    static const uint64_t jobs[] = {0, 1, 2, 9, 10, 11, 4, 3};
    cr_expect_eq(frame->job, jobs[index]);
    atedm_request request, expected = make_request(index == 1 ? "blurry" : NULL);
    atedm_worker_message message;
    bool on = false;
    switch (frame->type) {
    case ATEDM_FRAME_HELLO:
        cr_expect_eq(atedm_frame_check_hello(frame, NULL), ATEDM_OK);
        break;
    case ATEDM_FRAME_SUBMIT:
        cr_assert_eq(atedm_frame_get_submit(frame, &request), ATEDM_OK);
        expect_request(&request, &expected);
        atedm_request_finish(&request);
        break;
    case ATEDM_FRAME_CANCEL:
        cr_expect_eq(frame->size, 0);
        break;
    case ATEDM_FRAME_WATCH:
        cr_assert_eq(atedm_frame_get_watch(frame, &on), ATEDM_OK);
        cr_expect_eq(on, frame->job == 10);
        break;
    case ATEDM_FRAME_MESSAGE:
        cr_assert_eq(atedm_frame_get_message(frame, &message), ATEDM_OK);
        expect_message(&message);
        atedm_worker_message_finish(&message);
        break;
    }
    atedm_request_finish(&expected);
}

Test(frames, come_out_as_they_went_in)
{
    atedm_buffer stream = make_stream();
    for (size_t piece = 1; piece <= stream.size; piece = piece * 7 + 1) {
        atedm_frame_reader reader;
        atedm_frame frame;
        atedm_frame_reader_init(&reader);
        int frames = 0;
        for (size_t at = 0; at < stream.size; at += piece) {
            size_t size = stream.size - at < piece ? stream.size - at : piece;
            cr_assert_eq(atedm_frame_reader_feed(&reader, stream.data + at, size), ATEDM_OK);
            atedm_status status;
            while (!(status = atedm_frame_reader_next(&reader, &frame)))
                expect_frame(&frame, frames++);
            cr_assert_eq(status, ATEDM_ERR_NOT_FOUND);
        }
        cr_expect_eq(frames, 8, "in pieces of %zu", piece);
        atedm_frame_reader_finish(&reader);
    }
    atedm_buffer_finish(&stream);
}

// Whatever is changed in a stream, reading ends in good order, and what cannot be is refused.
Test(frames, damage_is_refused)
{
    atedm_buffer stream = make_stream();
    size_t refused = 0;
    for (uint64_t round = 0; round < 5000; round++) {
        uint64_t key = atedm_splitmix(1, round);
        size_t at = atedm_splitmix(key, 0) % stream.size;
        char old = stream.data[at];
        stream.data[at] = (char)atedm_splitmix(key, 1);
        atedm_frame_reader reader;
        atedm_frame frame;
        atedm_frame_reader_init(&reader);
        cr_assert_eq(atedm_frame_reader_feed(&reader, stream.data, stream.size), ATEDM_OK);
        atedm_status status;
        while (!(status = atedm_frame_reader_next(&reader, &frame))) {
            atedm_request request;
            atedm_worker_message message;
            bool on;
            if (!atedm_frame_get_submit(&frame, &request))
                atedm_request_finish(&request);
            else if (!atedm_frame_get_message(&frame, &message))
                atedm_worker_message_finish(&message);
            else if (atedm_frame_get_watch(&frame, &on))
                refused +=
                    frame.type != ATEDM_FRAME_CANCEL && atedm_frame_check_hello(&frame, NULL);
        }
        refused += status == ATEDM_ERR_FORMAT;
        atedm_frame_reader_finish(&reader);
        stream.data[at] = old;
    }
    cr_expect_gt(refused, 20, "%zu", refused);
    atedm_buffer_finish(&stream);
}

Test(frames, a_wish_is_yes_or_no)
{
    bool on = false;
    char wishes[] = {0, 1, 2};
    atedm_frame frame = {.type = ATEDM_FRAME_WATCH, .body = wishes + 2, .size = 1};
    cr_expect_eq(atedm_frame_get_watch(&frame, &on), ATEDM_ERR_FORMAT);
    frame = (atedm_frame){.type = ATEDM_FRAME_WATCH, .body = wishes, .size = 2};
    cr_expect_eq(atedm_frame_get_watch(&frame, &on), ATEDM_ERR_FORMAT);
    frame.size = 0;
    cr_expect_eq(atedm_frame_get_watch(&frame, &on), ATEDM_ERR_FORMAT);
    frame = (atedm_frame){.type = ATEDM_FRAME_CANCEL, .body = wishes, .size = 1};
    cr_expect_eq(atedm_frame_get_watch(&frame, &on), ATEDM_ERR_FORMAT);
    cr_expect(!on);
}

Test(frames, a_worker_of_another_build_is_refused)
{
    atedm_buffer stream = new_buffer();
    cr_assert_eq(atedm_frame_put_hello(&stream), ATEDM_OK);
    stream.data[stream.size - 48] ^= 1; // the version's first letter
    atedm_frame_reader reader;
    atedm_frame frame;
    atedm_frame_reader_init(&reader);
    cr_assert_eq(atedm_frame_reader_feed(&reader, stream.data, stream.size), ATEDM_OK);
    cr_assert_eq(atedm_frame_reader_next(&reader, &frame), ATEDM_OK);
    atedm_error err = {""};
    cr_expect_eq(atedm_frame_check_hello(&frame, &err), ATEDM_ERR_UNSUPPORTED);
    cr_expect(strstr(err.message, "build"));
    atedm_frame_reader_finish(&reader);
    atedm_buffer_finish(&stream);
}

Test(frames, a_frame_that_does_not_fit_leaves_the_buffer_as_it_was)
{
    atedm_buffer small;
    atedm_buffer_init(&small, 100);
    atedm_request request = make_request("blurry");
    cr_assert_eq(atedm_frame_put_cancel(&small, 1), ATEDM_OK);
    size_t before = small.size;
    cr_expect_eq(atedm_frame_put_submit(&small, 2, &request), ATEDM_ERR_LIMIT);
    cr_expect_eq(small.size, before);
    atedm_request_finish(&request);
    atedm_buffer_finish(&small);
}
