//! Changes model files at random and loads each in a child process, which may die of it; `make fuzz`.
//!
//! `fuzz COUNT SEED FOLDER…` takes the models below the folders for seeds and prints how many loads were refused, served,
//! stuck or deadly. Deadly files stay in a temporary folder that is named at the end; they are for whoever mends the
//! pre-scan, and belong nowhere else. The same numbers give the same files.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use mlserve_core::config::BatchingChoice;
use mlserve_ort::{LoadOptions, Runtime, RuntimeOptions, load};

/// A load that takes longer is stuck.
const MOST_TIME: Duration = Duration::from_secs(30);

/// Seeds larger than this are left out: their weights, not their structure, would be changed.
const MOST_BYTES: u64 = 256 << 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--load") {
        return load_what_is_named();
    }
    let [count, seed, folders @ ..] = &arguments[..] else { panic!("fuzz COUNT SEED FOLDER…") };
    let (count, seed): (u64, u64) = (count.parse().expect("a count"), seed.parse().expect("a seed"));
    let mut seeds = Vec::new();
    for folder in folders {
        find(Path::new(folder), &mut seeds);
    }
    seeds.sort();
    assert!(!seeds.is_empty(), "there are no models below {folders:?}");
    try_all(count, seed, &seeds);
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "onnx")
            && entry.metadata().is_ok_and(|metadata| metadata.len() <= MOST_BYTES)
        {
            found.push(path);
        }
    }
}

/// The child: loads one file after the other and says what became of it.
fn load_what_is_named() {
    let library = std::env::var_os("MLSERVE_ORT_LIB").expect("MLSERVE_ORT_LIB names libonnxruntime.so");
    let options = RuntimeOptions { arena_bytes: Some(256 << 20) };
    let runtime = Runtime::load(Path::new(&library), options).expect("the library loads");
    let options = LoadOptions {
        threads: Some(1),
        warmup_budget: Duration::from_millis(1),
        max_batch_rows: 2,
        batching: BatchingChoice::Off,
        ..LoadOptions::default()
    };
    for path in std::io::stdin().lock().lines() {
        let loaded = load(&runtime, Path::new(&path.expect("a path")), &options);
        println!("{}", if loaded.is_ok() { "served" } else { "refused" });
    }
}

/// A child that waits for files.
struct Loader {
    child: Child,
    files: ChildStdin,
    said: Receiver<String>,
}

impl Loader {
    fn start() -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.arg("--load").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a child can be started");
        let (files, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let (say, said) = channel();
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(say.send(line)));
        });
        Self { child, files, said }
    }

    /// What became of the file; `None` if the child died of it.
    fn load(&mut self, path: &Path) -> Option<String> {
        writeln!(self.files, "{}", path.display()).ok()?;
        match self.said.recv_timeout(MOST_TIME) {
            Ok(said) => Some(said),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Some("stuck".to_owned()),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
        }
    }

    fn end(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn try_all(count: u64, seed: u64, seeds: &[PathBuf]) {
    let folder = std::env::temp_dir().join(format!("mlserve-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
    let mut loader = Loader::start();
    let (mut counts, mut deadly) = (std::collections::BTreeMap::<String, u64>::new(), Vec::new());
    for number in 0..count {
        let mut random = Random((seed << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let source = &seeds[random.below(seeds.len())];
        let path = folder.join(format!("{number}.onnx"));
        std::fs::write(&path, changed(&std::fs::read(source).expect("seeds are readable"), &mut random))
            .expect("a temporary file can be written");
        let said = loader.load(&path);
        if said.as_ref().is_none_or(|said| said == "stuck") {
            loader.end();
            loader = Loader::start();
        }
        if said.is_none() {
            deadly.push(path);
        } else {
            let _ = std::fs::remove_file(&path);
        }
        *counts.entry(said.unwrap_or_else(|| "deadly".to_owned())).or_default() += 1;
    }
    loader.end();
    println!("{count} files of {} seeds: {counts:?}", seeds.len());
    if deadly.is_empty() {
        let _ = std::fs::remove_dir_all(&folder);
    } else {
        println!("deadly ones are in {}", folder.display());
        std::process::exit(1);
    }
}

/// One to four changes of a file.
fn changed(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let Some(mut fields) = parsed(bytes, 0) else { return bytes.to_vec() };
    for _ in 0..=random.below(4) {
        change(&mut fields, random);
    }
    let mut out = Vec::new();
    for field in &fields {
        field.write(&mut out);
    }
    out
}

/// A field of a protobuf message, as far as it can be told without a schema.
#[derive(Clone, Debug)]
struct Field {
    tag: u64,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    Eight([u8; 8]),
    Four([u8; 4]),
    Bytes(Vec<u8>),
    Fields(Vec<Field>),
}

fn parsed(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = number(&mut bytes)?;
        let tag = key >> 3;
        if tag == 0 || tag > 100 {
            return None;
        }
        let value = match key & 7 {
            0 => Value::Number(number(&mut bytes)?),
            1 => Value::Eight(take(&mut bytes, 8)?.try_into().ok()?),
            5 => Value::Four(take(&mut bytes, 4)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(number(&mut bytes)?).ok()?;
                let content = take(&mut bytes, length)?;
                let inner = (depth < 14 && !content.is_empty()).then(|| parsed(content, depth + 1)).flatten();
                inner.map_or_else(|| Value::Bytes(content.to_vec()), Value::Fields)
            }
            _ => return None,
        };
        fields.push(Field { tag, value });
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in 0..10 {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f) << (7 * shift);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn write_number(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Field {
    fn write(&self, out: &mut Vec<u8>) {
        let kind = match self.value {
            Value::Number(_) => 0,
            Value::Eight(_) => 1,
            Value::Four(_) => 5,
            Value::Bytes(_) | Value::Fields(_) => 2,
        };
        write_number(self.tag << 3 | kind, out);
        match &self.value {
            Value::Number(value) => write_number(*value, out),
            Value::Eight(bytes) => out.extend_from_slice(bytes),
            Value::Four(bytes) => out.extend_from_slice(bytes),
            Value::Bytes(bytes) => {
                write_number(bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
            Value::Fields(fields) => {
                let mut inner = Vec::new();
                for field in fields {
                    field.write(&mut inner);
                }
                write_number(inner.len() as u64, out);
                out.extend_from_slice(&inner);
            }
        }
    }
}

/// Numbers at which things break.
const NUMBERS: [u64; 12] = [0, 1, 2, 3, 7, 8, 127, 255, i32::MAX as u64, u32::MAX as u64, i64::MAX as u64, u64::MAX];

/// Changes one field somewhere below.
fn change(fields: &mut Vec<Field>, random: &mut Random) {
    if fields.is_empty() {
        return;
    }
    let place = random.below(fields.len());
    // Down most of the time: most fields are deep.
    if let Value::Fields(inner) = &mut fields[place].value
        && random.below(8) > 0
    {
        return change(inner, random);
    }
    let other = random.below(fields.len());
    match random.below(6) {
        0 => drop(fields.remove(place)),
        1 => fields.insert(other, fields[place].clone()),
        2 => fields.swap(place, other),
        3 => fields[place].value = fields[other].value.clone(),
        4 => fields[place].tag = 1 + random.below(30) as u64,
        _ => change_value(&mut fields[place].value, random),
    }
}

fn change_value(value: &mut Value, random: &mut Random) {
    match value {
        Value::Number(number) => *number = NUMBERS[random.below(NUMBERS.len())],
        Value::Eight(bytes) => bytes[random.below(8)] ^= 1 << random.below(8),
        Value::Four(bytes) => bytes[random.below(4)] ^= 1 << random.below(8),
        Value::Bytes(bytes) if bytes.is_empty() => bytes.push(random.below(256) as u8),
        Value::Bytes(bytes) => {
            let place = random.below(bytes.len());
            match random.below(3) {
                0 => bytes.truncate(place),
                1 => bytes.extend_from_within(place..),
                _ => bytes[place] ^= 1 << random.below(8),
            }
        }
        Value::Fields(fields) => fields.clear(),
    }
}

/// Numbers that look random (xorshift64, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) % bound as u64) as usize
    }
}
