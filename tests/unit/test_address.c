// Addresses to listen on: every form, and what is said about those that are wrong.
#include "server/address.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static atedm_addresses parse(const char *list)
{
    atedm_addresses addresses;
    atedm_error err = {""};
    atedm_status status = atedm_addresses_parse(list, &addresses, &err);
    cr_assert_eq(status, ATEDM_OK, "%s: %s", list, err.message);
    return addresses;
}

static void expect_tcp(const char *text, const char *host, const char *port, bool tls)
{
    atedm_addresses all = parse(text);
    cr_assert_eq(all.count, 1);
    const atedm_address *a = &all.items[0];
    cr_assert_eq(a->kind, ATEDM_ADDRESS_TCP);
    cr_assert_str_eq(a->host, host);
    cr_assert_str_eq(a->port, port);
    cr_assert_eq(a->tls, tls);
    cr_assert_eq(a->bracketed, strchr(host, ':') != NULL);
    cr_assert_eq(atedm_addresses_have_tls(&all), tls);
}

static void expect_error(const char *list, atedm_status wanted, const char *part)
{
    atedm_addresses untouched = {.count = 77};
    atedm_error err = {""};
    atedm_status status = atedm_addresses_parse(list, &untouched, &err);
    cr_assert_eq(status, wanted, "%s: %d, \"%s\"", list, status, err.message);
    cr_assert_not_null(strstr(err.message, part), "\"%s\" lacks \"%s\"", err.message, part);
    cr_assert_eq(untouched.count, 77);
}

Test(address, tcp)
{
    expect_tcp("127.0.0.1:8080", "127.0.0.1", "8080", false);
    expect_tcp("http://127.0.0.1:8080", "127.0.0.1", "8080", false);
    expect_tcp("https://localhost:8443", "localhost", "8443", true);
    expect_tcp("[::1]:8080", "::1", "8080", false);
    expect_tcp("https://[::]:443", "::", "443", true);
    expect_tcp(":8080", "", "8080", false);
    expect_tcp("https://:8443", "", "8443", true);
    expect_tcp("localhost:0", "localhost", "0", false);
    expect_tcp("a:1", "a", "1", false);
    expect_tcp("a:65535", "a", "65535", false);
    expect_tcp("a:00080", "a", "80", false);
    expect_tcp("[fe80::1%eth0]:8080", "fe80::1%eth0", "8080", false);
}

Test(address, ports)
{
    expect_error("a:65536", ATEDM_ERR_LIMIT, "\"a:65536\": the port is not within 0..65535");
    expect_error("a:99999999999999999999", ATEDM_ERR_LIMIT, "not within 0..65535");
    expect_error("a:-1", ATEDM_ERR_INVALID, "is not ADDRESS:PORT");
    expect_error("a:", ATEDM_ERR_INVALID, "is not ADDRESS:PORT");
    expect_error("a:http", ATEDM_ERR_INVALID, "is not ADDRESS:PORT");
    expect_error("a:80/", ATEDM_ERR_INVALID, "is not ADDRESS:PORT");
    expect_error("8080", ATEDM_ERR_INVALID, "is not ADDRESS:PORT, e.g. 127.0.0.1:8080");
    expect_error("[::1]", ATEDM_ERR_INVALID, "is not ADDRESS:PORT");
}

Test(address, brackets)
{
    expect_error("::1:8080", ATEDM_ERR_INVALID, "an IPv6 address needs brackets, e.g. [::1]:8080");
    expect_error("fe80::1%eth0:8080", ATEDM_ERR_INVALID, "needs brackets");
    expect_error("::1]:8080", ATEDM_ERR_INVALID, "needs brackets");
    expect_error("a]:8080", ATEDM_ERR_INVALID, "needs brackets");
    expect_error("[::1:8080", ATEDM_ERR_INVALID, "a bracket without the other");
    expect_error("[]:8080", ATEDM_ERR_INVALID, "a bracket without the other");
    expect_error("[:8080", ATEDM_ERR_INVALID, "a bracket without the other");
}

Test(address, schemes)
{
    expect_error("ftp://a:21", ATEDM_ERR_INVALID, "neither http nor https");
    expect_error("HTTPS://a:21", ATEDM_ERR_INVALID, "neither http nor https");
    expect_error("https://unix:/a", ATEDM_ERR_INVALID, "is not ADDRESS:PORT");
    expect_error("https://systemd", ATEDM_ERR_INVALID, "is not ADDRESS:PORT");
}

Test(address, unix_sockets)
{
    atedm_addresses all = parse("unix:/run/atedmd/atedmd.sock");
    cr_assert_eq(all.items[0].kind, ATEDM_ADDRESS_UNIX);
    cr_assert_str_eq(all.items[0].path, "/run/atedmd/atedmd.sock");
    cr_assert_not(all.items[0].tls);
    expect_error("unix:", ATEDM_ERR_INVALID, "the path has to begin with /");
    expect_error("unix:atedmd.sock", ATEDM_ERR_INVALID, "the path has to begin with /");
    expect_error("unix:@atedmd", ATEDM_ERR_INVALID, "the path has to begin with /");
}

Test(address, the_longest_path)
{
    char text[ATEDM_ADDRESS_TEXT_MAX];
    int longest = ATEDM_ADDRESS_PATH_MAX - 1;
    snprintf(text, sizeof text, "unix:/%0*d", longest - 1, 0);
    cr_assert_eq(strlen(parse(text).items[0].path), longest);
    snprintf(text, sizeof text, "unix:/%0*d", longest, 0);
    expect_error(text, ATEDM_ERR_LIMIT, "the path has more than 107 bytes");
}

Test(address, the_longest_host_and_text)
{
    char text[2 * ATEDM_ADDRESS_TEXT_MAX];
    int longest = ATEDM_ADDRESS_HOST_MAX - 1;
    snprintf(text, sizeof text, "%0*d:80", longest, 0);
    cr_assert_eq(strlen(parse(text).items[0].host), longest);
    snprintf(text, sizeof text, "%0*d:80", longest + 1, 0);
    expect_error(text, ATEDM_ERR_LIMIT, "the host has more than 255 bytes");
    snprintf(text, sizeof text, "a:80,%0*d", ATEDM_ADDRESS_TEXT_MAX, 0);
    expect_error(text, ATEDM_ERR_LIMIT, "has more than 279 bytes");
}

Test(address, lists)
{
    atedm_addresses all = parse("127.0.0.1:8080, https://[::]:8443 ,unix:/a,systemd");
    cr_assert_eq(all.count, 4);
    cr_assert_str_eq(all.items[1].text, "https://[::]:8443");
    cr_assert_eq(all.items[3].kind, ATEDM_ADDRESS_PASSED);
    cr_assert(atedm_addresses_have_tls(&all));
    cr_assert(atedm_addresses_have_passed(&all));
    all = parse("127.0.0.1:8080,unix:/a");
    cr_assert_not(atedm_addresses_have_passed(&all));
    expect_error("", ATEDM_ERR_INVALID, "an address of the list is empty");
    expect_error("a:1,", ATEDM_ERR_INVALID, "an address of the list is empty");
    expect_error(",a:1", ATEDM_ERR_INVALID, "an address of the list is empty");
    expect_error("a:1,  ,b:1", ATEDM_ERR_INVALID, "an address of the list is empty");
    expect_error("a:1,b", ATEDM_ERR_INVALID, "\"b\" is not ADDRESS:PORT");
}

Test(address, duplicates)
{
    expect_error("a:1,b:1,A:1", ATEDM_ERR_INVALID, "\"A:1\" is there twice");
    expect_error("a:1,a:01", ATEDM_ERR_INVALID, "\"a:01\" is there twice");
    expect_error("a:1,https://a:1", ATEDM_ERR_INVALID, "\"https://a:1\" is there twice");
    expect_error("unix:/a,unix:/a", ATEDM_ERR_INVALID, "\"unix:/a\" is there twice");
    expect_error("systemd,systemd", ATEDM_ERR_INVALID, "\"systemd\" is there twice");
    cr_assert_eq(parse("a:0,a:0,a:1,b:1,unix:/a,unix:/b").count, 6);
}

Test(address, the_longest_list)
{
    char list[16 * (ATEDM_ADDRESS_MAX + 1)] = "";
    for (int i = 0; i < ATEDM_ADDRESS_MAX; i++)
        snprintf(list + strlen(list), sizeof list - strlen(list), "%sa:%d", i ? "," : "", i);
    cr_assert_eq(parse(list).count, ATEDM_ADDRESS_MAX);
    snprintf(list + strlen(list), sizeof list - strlen(list), ",a:99");
    expect_error(list, ATEDM_ERR_LIMIT, "more than 16 addresses");
}

Test(address, modes)
{
    unsigned mode = 7777;
    atedm_error err = {""};
    const struct {
        const char *text;
        unsigned mode;
    } good[] = {{"0660", 0660}, {"600", 0600}, {"0", 0}, {"777", 0777}, {"00777", 0777}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        cr_assert_eq(atedm_socket_mode_parse(good[i].text, &mode, &err), ATEDM_OK);
        cr_assert_eq(mode, good[i].mode);
    }
    mode = 7777;
    const char *const bad[] = {"",     "1000", "8",  "0668", "-1",
                               "0x1f", "rw",   " 6", "660 ", "77777777777777777777777"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(atedm_socket_mode_parse(bad[i], &mode, &err), ATEDM_ERR_INVALID, "%s", bad[i]);
        cr_assert_not_null(strstr(err.message, "no permissions in octal within 0..0777"));
        cr_assert_eq(mode, 7777);
    }
}
