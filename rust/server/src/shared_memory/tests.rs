use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use mlserve_core::request::Text;

use super::region::Fault;
use super::*;

/// A folder in the place of `/dev/shm`, with a file `object` of 100 bytes.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("mlserve-regions-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a new folder");
        fs::write(path.join("object"), (0..100).collect::<Vec<u8>>()).expect("written");
        Self(path)
    }

    fn regions(&self) -> Regions {
        Regions::in_folder(true, self.0.clone())
    }

    fn object(&self) -> File {
        File::options().write(true).open(self.0.join("object")).expect("there")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn place(region: &'static str, offset: u64, byte_size: u64) -> Place {
    Place { region: Text::from(region), offset, byte_size }
}

#[test]
fn a_window_is_a_part_of_its_region_and_the_region_of_its_object() {
    let folder = Folder::new();
    let regions = folder.regions();
    regions.register("r", "/object", 10, 20).expect("registered");
    let window = regions.window(&place("r", 5, 3)).expect("inside");
    assert_eq!(window.read(), Ok(vec![15, 16, 17]));
    window.write(b"xy").expect("written");
    assert_eq!(fs::read(folder.0.join("object")).expect("there")[14..18], [14, b'x', b'y', 17]);
    assert_eq!(regions.window(&place("r", 0, 20)).expect("all of it").len(), 20);
    assert_eq!(regions.window(&place("r", 19, 0)).expect("nothing of it").read(), Ok(vec![]));
}

#[test]
fn what_is_outside_is_refused_whatever_the_numbers() {
    let folder = Folder::new();
    let regions = folder.regions();
    for (offset, byte_size) in [(0, 101), (100, 1), (1, 100), (u64::MAX, 1), (1, u64::MAX), (0, u64::MAX), (0, 0)] {
        let error = regions.register("r", "object", offset, byte_size).expect_err("outside");
        assert_eq!(error.kind(), Kind::InvalidArgument, "{offset} {byte_size}");
    }
    regions.register("r", "object", 10, 20).expect("registered");
    for (offset, byte_size) in [(20, 0), (20, 1), (0, 21), (19, 2), (u64::MAX, 2), (2, u64::MAX), (u64::MAX, u64::MAX)]
    {
        let error = regions.window(&place("r", offset, byte_size)).expect_err("outside");
        assert_eq!(error.kind(), Kind::InvalidArgument, "{offset} {byte_size}");
        assert!(error.text().ends_with("the region has 20 bytes"), "{error}");
    }
}

#[test]
fn keys_name_one_file_directly_in_the_folder() {
    let folder = Folder::new();
    let outside = Folder::new();
    fs::create_dir(folder.0.join("folder")).expect("created");
    fs::write(folder.0.join("folder/inner"), [1]).expect("written");
    symlink(outside.0.join("object"), folder.0.join("link")).expect("linked");
    symlink("object", folder.0.join("inside")).expect("linked");
    let reserved = format!("/{RESERVED_PREFIX}1");
    let long = "k".repeat(256);
    let regions = folder.regions();
    let escape = format!("../{}/object", outside.0.file_name().and_then(|name| name.to_str()).expect("text"));
    for key in
        ["", "/", "//", ".", "..", "/..", "folder", "folder/inner", "/folder/inner", "link", "inside", "none", "a\0b"]
    {
        regions.register("r", key, 0, 1).expect_err(key);
    }
    for key in [&*escape, "object/", "obj\nect", "/dev/null", &reserved, &long] {
        regions.register("r", key, 0, 1).expect_err(key);
    }
    assert!(regions.list("").expect("a list").is_empty());
    regions.register("r", "//object", 0, 1).expect("shm_open skips slashes too");
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let folder = Folder::new();
    let _socket = UnixListener::bind(folder.0.join("socket")).expect("bound");
    folder.regions().register("r", "socket", 0, 1).expect_err("a socket");
    let pipe = Command::new("mkfifo").arg(folder.0.join("pipe")).status().expect("coreutils are there");
    assert!(pipe.success());
    folder.regions().register("r", "pipe", 0, 1).expect_err("a pipe");
}

#[test]
fn an_object_that_shrinks_fails_the_one_tensor_and_is_not_made_larger() {
    let folder = Folder::new();
    let regions = folder.regions();
    regions.register("r", "object", 0, 100).expect("registered");
    let window = regions.window(&place("r", 40, 20)).expect("inside");
    folder.object().set_len(50).expect("shorter");
    assert_eq!(window.read(), Err(Fault::Shrunk));
    assert_eq!(window.write(&[7; 20]), Err(Fault::Shrunk));
    assert_eq!(fs::metadata(folder.0.join("object")).expect("there").len(), 50);
    window.write(&[7; 10]).expect("what still fits");
    folder.object().set_len(100).expect("longer");
    assert_eq!(window.read().expect("there again")[..10], [7; 10]);
}

#[test]
fn a_region_that_is_forgotten_stays_with_those_who_found_it() {
    let folder = Folder::new();
    let regions = folder.regions();
    regions.register("r", "object", 0, 100).expect("registered");
    let window = regions.window(&place("r", 0, 2)).expect("inside");
    fs::remove_file(folder.0.join("object")).expect("unlinked");
    regions.unregister("r").expect("forgotten");
    regions.unregister("r").expect("a second time is no error");
    assert_eq!(window.read(), Ok(vec![0, 1]));
    assert_eq!(regions.window(&place("r", 0, 2)).expect_err("forgotten").kind(), Kind::NotFound);
}

#[test]
fn names_are_taken_once_bounded_and_listed_in_order() {
    let folder = Folder::new();
    let regions = Regions { most: 3, ..folder.regions() };
    regions.register("b", "object", 0, 1).expect("registered");
    regions.register("a", "/object", 1, 2).expect("registered");
    let taken = regions.register("a", "object", 0, 1).expect_err("taken");
    assert_eq!(taken.kind(), Kind::InvalidArgument);
    let listed = regions.list("").expect("a list");
    let listed: Vec<_> = listed.iter().map(|(name, region)| (&**name, &*region.key, region.offset)).collect();
    assert_eq!(listed, [("a", "/object", 1), ("b", "object", 0)]);
    assert_eq!(regions.list("b").expect("one").len(), 1);
    regions.register("", "object", 0, 1).expect_err("no name");
    regions.register("a\nb", "object", 0, 1).expect_err("a control character");
    regions.register(&format!("{RESERVED_PREFIX}x"), "object", 0, 1).expect_err("reserved");
    assert_eq!(regions.register(&"n".repeat(257), "object", 0, 1).expect_err("long").kind(), Kind::TooLarge);
    regions.register("c", "object", 0, 1).expect("registered");
    assert_eq!(regions.register("more", "object", 0, 1).expect_err("full").kind(), Kind::TooLarge);
    regions.unregister("").expect("all");
    assert!(regions.list("").expect("a list").is_empty());
}

#[test]
fn off_means_refused_but_for_asking_and_forgetting_everything() {
    let folder = Folder::new();
    let regions = Regions::in_folder(false, folder.0.clone());
    for refused in [
        regions.register("r", "object", 0, 1).expect_err("off"),
        regions.unregister("r").expect_err("off"),
        regions.window(&place("r", 0, 1)).expect_err("off"),
    ] {
        assert_eq!(refused.kind(), Kind::NotOffered);
        assert!(refused.text().contains("--allow-client-shm"), "{refused}");
    }
    regions.unregister("").expect("all of nothing");
    assert!(regions.list("").expect("a list").is_empty());
}

#[test]
fn errors_do_not_repeat_names_and_keys() {
    let folder = Folder::new();
    let regions = folder.regions();
    regions.register("secret", "object", 0, 10).expect("registered");
    let errors = [
        regions.register("secret", "object", 0, 10).expect_err("taken"),
        regions.register("r", "secret", 0, 10).expect_err("no such object"),
        regions.register("r", "../secret", 0, 10).expect_err("no key"),
        regions.register("r", &format!("{RESERVED_PREFIX}secret"), 0, 10).expect_err("reserved"),
        regions.register(&format!("{RESERVED_PREFIX}secret"), "object", 0, 10).expect_err("reserved"),
        regions.register("secret", "object", 0, 1_000).expect_err("too small"),
        regions.list("secret too").expect_err("unknown"),
        regions.window(&place("secret too", 0, 1)).expect_err("unknown"),
        regions.window(&place("secret", 10, 1)).expect_err("outside"),
        regions.window(&place("secret", 0, 11)).expect_err("outside"),
    ];
    for error in errors {
        assert!(!error.text().contains("secret") && !error.text().contains("object'"), "{error}");
    }
}
