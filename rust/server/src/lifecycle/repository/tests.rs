//! Repositories as they lie on disks: which models are found in them, and what is said of the rest.

use std::os::unix::fs::symlink;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str, files: &[&str]) -> Self {
        let root = std::env::temp_dir().join(format!("mlserve-repository-{}-{name}", std::process::id()));
        for file in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().expect("has a parent")).expect("made");
            std::fs::write(path, b"x").expect("written");
        }
        Self(root)
    }

    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.server.models_path = Some(self.0.clone());
        settings
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removed");
    }
}

/// Every version that is wanted, or the first problem.
fn find(settings: &Settings) -> Result<Vec<(String, u64)>, String> {
    let mut found = Vec::new();
    for (name, source) in list_all(settings)?.models {
        let wanted = versions(&source, &model_settings(settings, &name), None)?;
        found.extend(wanted.found.into_iter().map(|found| (found.name, found.version)));
    }
    Ok(found)
}

fn pairs(pairs: &[(&str, u64)]) -> Vec<(String, u64)> {
    pairs.iter().map(|&(name, version)| (name.to_owned(), version)).collect()
}

#[test]
fn a_repository_serves_the_latest_version_of_each_model() {
    let folder = Folder::new("latest", &["a/1/model.onnx", "a/3/model.onnx", "a/02/model.onnx", "b.onnx"]);
    assert_eq!(find(&folder.settings()).expect("found"), pairs(&[("a", 3), ("b", 1)]));
}

#[test]
fn a_policy_chooses_versions() {
    let folder = Folder::new("policy", &["a/1/model.onnx", "a/2/model.onnx", "a/3/model.onnx"]);
    let mut settings = folder.settings();
    settings.server.models_path = None;
    for (policy, expected) in [("all", vec![1, 2, 3]), ("latest:2", vec![2, 3]), ("1,3", vec![1, 3])] {
        let versions = policy.parse().expect("a policy");
        let model = ModelSettings { path: Some(folder.0.join("a")), versions, ..ModelSettings::default() };
        settings.models.insert("a".to_owned(), model);
        let found = find(&settings).expect("found");
        assert_eq!(found.iter().map(|found| found.1).collect::<Vec<_>>(), expected, "{policy}");
    }
}

#[test]
fn a_link_that_leads_outside_is_refused() {
    let outside = Folder::new("outside", &["secret/model.onnx"]);
    let folder = Folder::new("inside", &["a/1/model.onnx"]);
    symlink(outside.0.join("secret"), folder.0.join("a/2")).expect("linked");
    let error = find(&folder.settings()).expect_err("leads outside");
    assert!(error.contains("leads outside"), "{error}");
}

#[test]
fn links_inside_the_repository_are_followed() {
    // As Kubernetes mounts a volume: the entries are links into a hidden folder that is swapped whole.
    let folder = Folder::new("mounted", &["..data-1/a/1/model.onnx"]);
    symlink("..data-1", folder.0.join("..data")).expect("linked");
    symlink("..data/a", folder.0.join("a")).expect("linked");
    assert_eq!(find(&folder.settings()).expect("found"), pairs(&[("a", 1)]));
}

#[test]
fn addresses_of_object_stores_are_refused_by_name() {
    for address in ["s3://bucket/models", "gs://bucket/models", "https://example.com/m.onnx"] {
        let mut settings = Settings::default();
        settings.server.models_path = Some(address.into());
        let error = list(&settings).expect_err(address);
        assert!(error.starts_with(&format!("{address}: only local paths")), "{error}");
    }
}

/// What is said of an entry, whether it could be a model's name or not.
fn reason<'a>(listing: &'a Listing, name: &str) -> Option<&'a str> {
    let fault = listing.models.get(name).and_then(|source| source.fault.as_deref());
    fault.or_else(|| listing.odd.get(name).map(String::as_str))
}

#[test]
fn one_odd_entry_does_not_hide_the_others() {
    // Files of the entry, its name, whether that could be a model's, and what is said.
    let cases: [(&[&str], &str, bool, &str); 10] = [
        (&["-x/1/model.onnx"], "-x", false, "'-x' is no name for a model"),
        (&["my model/1/model.onnx"], "my model", false, "'my model' is no name for a model"),
        (&["my model.onnx"], "my model.onnx", false, "'my model' is no name for a model"),
        (&["lost+found/.keep"], "lost+found", false, "'lost+found' is no name for a model"),
        (&["notes/readme.txt"], "notes", false, "notes: no model here; expected NAME/VERSION/model.onnx"),
        (&["bad/01/model.onnx"], "bad", true, "/bad/01 is no version: allowed are folders named 1, 2, 3"),
        (&["bare/model.onnx"], "bare", true, "model.onnx is not in a version's folder; expected"),
        (&["hollow/1/.keep", "hollow/2/.keep"], "hollow", true, "no model.onnx in its versions' folders (1, 2)"),
        (&["7/model.onnx"], "7", true, "model.onnx is not in a version's folder"),
        (&["3/.keep"], "3", false, "3: no model here"),
    ];
    for (files, name, is_name, text) in cases {
        let folder = Folder::new("odd", &[&["a/1/model.onnx", "b.onnx"], files].concat());
        let listing = list(&folder.settings()).expect("listed");
        assert_eq!((listing.models.contains_key(name), listing.odd.contains_key(name)), (is_name, !is_name), "{name}");
        let said = reason(&listing, name).unwrap_or_default();
        assert!(said.contains(text), "{name}: {said}");
        let all = list_all(&folder.settings()).expect("a start that serves all there is goes on").models;
        let served: Vec<&String> =
            all.iter().filter(|(_, source)| source.fault.is_none()).map(|(name, _)| name).collect();
        assert_eq!(served, ["a", "b"], "{name}");
    }
}

#[test]
fn files_of_other_kinds_and_hidden_entries_are_left_alone() {
    let folder = Folder::new("plain", &["a/1/model.onnx", "README.md", "accuracy.json", ".git/1/model.onnx"]);
    let listing = list(&folder.settings()).expect("listed");
    assert_eq!(listing.models.keys().collect::<Vec<_>>(), ["a"]);
    assert!(listing.odd.is_empty(), "{:?}", listing.odd);
}

#[test]
fn what_cannot_be_looked_at_is_told() {
    let folder = Folder::new("dangling", &["a/1/model.onnx"]);
    symlink("nowhere", folder.0.join("b")).expect("linked");
    symlink("nowhere", folder.0.join("c.onnx")).expect("linked");
    let listing = list(&folder.settings()).expect("listed");
    for name in ["b", "c"] {
        assert!(reason(&listing, name).is_some_and(|reason| reason.contains("No such file")), "{listing:?}");
    }
}

#[test]
fn of_two_entries_for_a_name_the_second_is_told() {
    let folder = Folder::new("twice", &["a/1/model.onnx", "a.onnx"]);
    let listing = list(&folder.settings()).expect("listed");
    assert!(listing.models["a"].path.is_dir());
    assert_eq!(listing.odd["a.onnx"], "there is another entry for the model 'a'");
}

#[test]
fn a_model_may_have_a_number_for_its_name() {
    let folder = Folder::new("years", &["2024/1/model.onnx", "2025/1/model.onnx", "2025/3/model.onnx"]);
    assert_eq!(find(&folder.settings()).expect("found"), pairs(&[("2024", 1), ("2025", 3)]));
    let folder = Folder::new("year", &["2024/1/model.onnx"]);
    assert_eq!(find(&folder.settings()).expect("found"), pairs(&[("2024", 1)]));
    let folder = Folder::new("configured", &["2024/config.pbtxt", "2024/1/other.onnx", "2025/1/model.onnx"]);
    assert_eq!(list(&folder.settings()).expect("listed").models.keys().collect::<Vec<_>>(), ["2024", "2025"]);
}

#[test]
fn a_folder_of_versions_is_one_model() {
    let name = |folder: &Folder| folder.0.file_name().expect("named").to_string_lossy().into_owned();
    for (files, expected) in [
        (&["1/model.onnx", "2/model.onnx"][..], 2),
        (&["1/model.onnx", "original.onnx", "notes/readme.txt"], 1),
        (&["config.pbtxt", "1/model.onnx", "old/1/model.onnx"], 1),
    ] {
        let folder = Folder::new("one", files);
        assert_eq!(find(&folder.settings()).expect("found"), [(name(&folder), expected)], "{files:?}");
    }
}

#[test]
fn a_version_without_a_model_is_left_out_and_told() {
    let folder = Folder::new("forgotten", &["a/1/model.onnx", "a/2/model.onnx.part", "a/10/.keep"]);
    let source = source(&folder.settings(), "a").expect("there");
    let found = versions(&source, &ModelSettings::default(), None).expect("found");
    assert_eq!(found.found.iter().map(|found| found.version).collect::<Vec<_>>(), [1]);
    assert_eq!(found.left_out, [folder.0.join("a/10"), folder.0.join("a/2")]);
    let renamed = versions(&source, &ModelSettings::default(), Some("model.onnx.part")).expect("found");
    assert_eq!(renamed.found[0].version, 2, "a configuration names the file");
}

#[test]
fn a_folder_that_is_no_version_is_named() {
    for odd in ["v1", "01", "0", "-1", "latest"] {
        let folder = Folder::new(&format!("odd-{odd}"), &[&format!("a/{odd}/model.onnx"), "b/1/model.onnx"]);
        let error = find(&folder.settings()).expect_err(odd);
        assert!(error.contains(&format!("/{odd} is no version: allowed are")), "{error}");
    }
    let folder = Folder::new("odd-beside", &["a/1/model.onnx", "a/old/model.onnx"]);
    assert_eq!(find(&folder.settings()).expect("found"), pairs(&[("a", 1)]), "beside versions it is left alone");
}

#[test]
fn links_lead_to_trusted_folders_and_to_what_is_named() {
    let claim = Folder::new("claim", &["a/1/model.onnx", "b.onnx"]);
    let folder = Folder::new("mounted-claim", &["own/1/model.onnx"]);
    // As KServe mounts pvc://: one link for each entry of the claim.
    symlink(claim.0.join("a"), folder.0.join("a")).expect("linked");
    symlink(claim.0.join("b.onnx"), folder.0.join("b.onnx")).expect("linked");
    let mut settings = folder.settings();
    let listing = list(&settings).expect("listed");
    assert!(reason(&listing, "a").is_some_and(|reason| reason.contains("leads outside")), "{listing:?}");
    assert!(reason(&listing, "b").is_some_and(|reason| reason.contains("server.trusted_roots")), "{listing:?}");
    settings.server.trusted_roots = format!("/mnt/pvc, {}", claim.0.display());
    assert_eq!(find(&settings).expect("found"), pairs(&[("a", 1), ("b", 1), ("own", 1)]));
    // What is named is trusted to where it leads, also if that changes.
    let current = folder.0.with_extension("current");
    symlink(claim.0.join("a"), &current).expect("linked");
    let mut settings = Settings::default();
    settings.models.insert("m".to_owned(), ModelSettings { path: Some(current.clone()), ..ModelSettings::default() });
    let found = find(&settings);
    std::fs::remove_file(&current).expect("removed");
    assert_eq!(found.expect("found"), pairs(&[("m", 1)]));
}

#[test]
fn versions_may_share_weights_by_links() {
    let folder = Folder::new("shared", &["a/1/model.onnx", "common/model.bin"]);
    std::fs::create_dir(folder.0.join("a/2")).expect("made");
    symlink("../1/model.onnx", folder.0.join("a/2/model.onnx")).expect("linked");
    symlink("../../common/model.bin", folder.0.join("a/2/model.bin")).expect("linked");
    assert_eq!(find(&folder.settings()).expect("found"), pairs(&[("a", 2)]));
}

#[test]
fn a_model_whose_own_path_is_missing_is_listed_with_the_reason() {
    let folder = Folder::new("own-path", &["a/1/model.onnx"]);
    let mut settings = folder.settings();
    let path = Some(folder.0.join("missing"));
    settings.models.insert("m".to_owned(), ModelSettings { path, ..ModelSettings::default() });
    let listing = list_all(&settings).expect("the others are served");
    assert!(reason(&listing, "m").is_some_and(|reason| reason.contains("No such file")), "{listing:?}");
}

#[test]
fn a_model_is_found_by_its_name() {
    let folder = Folder::new("named", &["a/1/model.onnx"]);
    assert_eq!(source(&folder.settings(), "a").expect("found").name, "a");
    assert_eq!(source(&folder.settings(), "b").expect_err("unknown").kind(), Kind::NotFound);
    assert_eq!(source(&folder.settings(), "../a").expect_err("no name").kind(), Kind::InvalidArgument);
}

#[test]
fn names_are_checked() {
    for bad in ["", ".hidden", "-x", "a b", "a/b", "..", "a\n", &"a".repeat(129)] {
        assert!(check_name(bad).is_err(), "{bad:?}");
    }
    for good in ["a", "A-1_x.y", &"a".repeat(128)] {
        assert_eq!(check_name(good), Ok(()));
    }
}

#[test]
fn an_empty_folder_says_what_is_expected() {
    let folder = Folder::new("empty", &["readme.txt"]);
    assert!(find(&folder.settings()).expect_err("empty").contains("NAME/VERSION/model.onnx"));
}
