//! Containers' logs in the CRI format, `<time> <stream> <F|P> <text>`: written with rotation, read as `kubectl logs` asks.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};

/// Kubelet's limits: a file's size, and how many are kept.
const FILE_BYTES: u64 = 10 << 20;
const FILES: u32 = 5;
/// A line that is longer is cut into parts, as container runtimes do.
const LINE_BYTES: usize = 16 << 10;

/// Where a chunk was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Error,
}

/// What a container writes, while it runs.
#[derive(Debug)]
pub(crate) struct Output {
    writer: Mutex<Writer>,
    /// For those who are attached; who is too slow misses some.
    pub(crate) chunks: broadcast::Sender<(Stream, Bytes)>,
    /// Changes with every write; true after the last one.
    over: watch::Sender<bool>,
}

#[derive(Debug)]
struct Writer {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    limit: u64,
}

/// The file of a container's nth start.
pub(crate) fn path(folder: &Path, attempt: i32) -> PathBuf {
    folder.join(format!("{attempt}.log"))
}

/// Writes what comes out of the descriptors until both are closed.
pub(crate) fn capture(path: PathBuf, sources: Vec<(Stream, OwnedFd)>) -> std::io::Result<Arc<Output>> {
    let output = Arc::new(Output {
        writer: Mutex::new(Writer::open(path, FILE_BYTES)?),
        chunks: broadcast::channel(64).0,
        over: watch::channel(false).0,
    });
    let mut tasks = tokio::task::JoinSet::new();
    for (stream, source) in sources {
        let output = Arc::clone(&output);
        let source = nonblocking(source)?;
        tasks.spawn(async move { output.copy(stream, source).await });
    }
    let ends = Arc::clone(&output);
    tokio::spawn(async move {
        while tasks.join_next().await.is_some() {}
        ends.over.send_replace(true);
    });
    Ok(output)
}

/// A pipe or a terminal as an asynchronous file.
pub(crate) fn nonblocking(descriptor: OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<File>> {
    rustix::io::ioctl_fionbio(&descriptor, true)?;
    #[expect(unsafe_code, reason = "the descriptor must stay open while the runtime watches it")]
    // SAFETY: the file owns it and neither replaces nor closes it while the registration lives.
    let registered = unsafe { tokio::io::unix::AsyncFd::register(File::from(descriptor)) };
    Ok(registered?)
}

/// Reads what is there; 0 is the end. A terminal whose other side closed says so with an error.
pub(crate) async fn read(source: &tokio::io::unix::AsyncFd<File>, buffer: &mut [u8]) -> usize {
    loop {
        let Ok(mut ready) = source.readable().await else {
            return 0;
        };
        if let Ok(read) = ready.try_io(|source| std::io::Read::read(&mut source.get_ref(), buffer)) {
            return read.unwrap_or(0);
        }
    }
}

/// Writes all of it.
pub(crate) async fn write(target: &tokio::io::unix::AsyncFd<File>, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = target.writable().await?;
        if let Ok(written) = ready.try_io(|target| std::io::Write::write(&mut target.get_ref(), bytes)) {
            bytes = bytes.get(written?..).unwrap_or_default();
        }
    }
    Ok(())
}

impl Output {
    async fn copy(&self, stream: Stream, source: tokio::io::unix::AsyncFd<File>) {
        let mut buffer = vec![0; LINE_BYTES];
        let mut line = Vec::new();
        loop {
            let length = read(&source, &mut buffer).await;
            let chunk = buffer.get(..length).unwrap_or_default();
            let now = Timestamp::now();
            let entries = entries(&mut line, chunk, stream, now, length == 0);
            if !entries.is_empty() {
                self.writer.lock().write(&entries);
                self.over.send_replace(false);
            }
            if length == 0 {
                return;
            }
            _ = self.chunks.send((stream, Bytes::copy_from_slice(chunk)));
        }
    }

    /// Waits until nothing more will be written.
    pub(crate) async fn complete(&self) {
        _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

/// Whole lines of `line` and `chunk` as log entries; what is left stays in `line`.
fn entries(line: &mut Vec<u8>, chunk: &[u8], stream: Stream, now: Timestamp, end: bool) -> Vec<u8> {
    let name = match stream {
        Stream::Out => "stdout",
        Stream::Error => "stderr",
    };
    let mut out = Vec::new();
    let mut entry = |tag: char, text: &[u8]| {
        out.extend_from_slice(format!("{now:.9} {name} {tag} ").as_bytes());
        out.extend_from_slice(text);
        out.push(b'\n');
    };
    line.extend_from_slice(chunk);
    let mut rest = line.as_slice();
    loop {
        let window = rest.get(..rest.len().min(LINE_BYTES)).unwrap_or_default();
        if let Some(at) = window.iter().position(|byte| *byte == b'\n') {
            entry('F', rest.get(..at).unwrap_or_default());
            rest = rest.get(at + 1..).unwrap_or_default();
        } else if rest.len() >= LINE_BYTES || (end && !rest.is_empty()) {
            entry('P', window);
            rest = rest.get(window.len()..).unwrap_or_default();
        } else {
            break;
        }
    }
    *line = rest.to_vec();
    out
}

impl Writer {
    fn open(path: PathBuf, limit: u64) -> std::io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::options().append(true).create(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file: Some(file),
            size,
            limit,
        })
    }

    /// A full disk loses lines, not the container.
    fn write(&mut self, entries: &[u8]) {
        if self.size > 0 && self.size + entries.len() as u64 > self.limit {
            for number in (1..FILES - 1).rev() {
                _ = fs::rename(rotated(&self.path, number), rotated(&self.path, number + 1));
            }
            _ = fs::rename(&self.path, rotated(&self.path, 1));
            self.file = File::options().append(true).create(true).open(&self.path).ok();
            self.size = 0;
        }
        if let Some(file) = &mut self.file
            && file.write_all(entries).is_ok()
        {
            self.size += entries.len() as u64;
        }
    }
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    path.with_extension(format!("log.{number}"))
}

/// What `kubectl logs` asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) follow: bool,
    pub(crate) tail: Option<usize>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) timestamps: bool,
    pub(crate) limit: Option<usize>,
}

/// Sends a log's text; ends with the log, or with the container where it is followed.
pub(crate) async fn send(path: PathBuf, ask: Ask, live: Option<Arc<Output>>, to: mpsc::Sender<Bytes>) {
    let since = ask.since.map(|since| format!("{since:.9}").into_bytes());
    let mut left = ask.limit;
    let mut changes = live.as_ref().filter(|_| ask.follow).map(|live| live.over.subscribe());
    let text = |entry: &[u8]| -> Option<Vec<u8>> {
        let mut parts = entry.splitn(4, |byte| *byte == b' ');
        let (time, tag, body) = (parts.next()?, parts.nth(1)?, parts.next().unwrap_or_default());
        if since.as_deref().is_some_and(|since| time < since) {
            return None;
        }
        let mut line = Vec::new();
        if ask.timestamps {
            line.extend_from_slice(time);
            line.push(b' ');
        }
        line.extend_from_slice(body);
        if tag == b"F" {
            line.push(b'\n');
        }
        Some(line)
    };
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    let older = (1..FILES)
        .rev()
        .map(|number| rotated(&path, number))
        .filter(|path| path.exists());
    let mut files: VecDeque<PathBuf> = older.collect();
    files.push_back(path.clone());
    let mut tail = ask.tail;
    let mut reader: Option<(u64, BufReader<File>)> = None;
    let mut pending = Vec::new();
    loop {
        // Before reading: what is written meanwhile is seen as a change.
        let over = changes.as_mut().is_none_or(|changes| *changes.borrow_and_update());
        loop {
            if reader.is_none() {
                let Some(next) = files.pop_front() else { break };
                let Ok(file) = File::open(next) else { continue };
                let inode = file.metadata().map_or(0, |found| found.ino());
                reader = Some((inode, BufReader::new(file)));
            }
            let Some((_, open)) = &mut reader else { break };
            if open.read_until(b'\n', &mut pending).is_ok_and(|read| read > 0) {
                if pending.last() == Some(&b'\n') {
                    pending.pop();
                    if let Some(line) = text(&pending) {
                        match tail {
                            Some(0) => {}
                            Some(count) => {
                                if last.len() == count {
                                    last.pop_front();
                                }
                                last.push_back(line);
                            }
                            None => {
                                if !give(&to, line, &mut left).await {
                                    return;
                                }
                            }
                        }
                    }
                    pending.clear();
                }
            } else if files.is_empty() {
                break;
            } else {
                reader = None;
            }
        }
        if tail.take().is_some() {
            for line in last.drain(..) {
                if !give(&to, line, &mut left).await {
                    return;
                }
            }
        }
        let moved =
            fs::metadata(&path).is_ok_and(|found| reader.as_ref().is_none_or(|(inode, _)| *inode != found.ino()));
        if moved && !over {
            // Rotated away and read to its end: on with the new file.
            reader = None;
            files.push_back(path.clone());
            continue;
        }
        let Some(changes) = changes.as_mut().filter(|_| !over) else {
            return;
        };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = to.closed() => return,
        }
    }
}

async fn give(to: &mpsc::Sender<Bytes>, mut line: Vec<u8>, left: &mut Option<usize>) -> bool {
    if let Some(left) = left {
        line.truncate(*left);
        *left -= line.len();
        if line.is_empty() {
            return false;
        }
    }
    to.send(line.into()).await.is_ok()
}

/// The end of a log, for a message about why a container failed.
pub(crate) async fn ending(path: PathBuf, lines: usize, bytes: usize) -> String {
    let (tx, mut rx) = mpsc::channel(16);
    let ask = Ask {
        tail: Some(lines),
        ..Ask::default()
    };
    let read = tokio::spawn(send(path, ask, None, tx));
    let mut all = Vec::new();
    while let Some(line) = rx.recv().await {
        all.extend_from_slice(&line);
    }
    _ = read.await;
    let from = all.len().saturating_sub(bytes);
    String::from_utf8_lossy(all.get(from..).unwrap_or_default()).into_owned()
}

/// What a program writes, of which the first `limit` bytes are kept.
pub(crate) async fn drain(source: OwnedFd, limit: usize) -> Vec<u8> {
    let Ok(source) = nonblocking(source) else {
        return Vec::new();
    };
    let (mut all, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        let length = read(&source, &mut buffer).await;
        if length == 0 {
            return all;
        }
        let room = limit.saturating_sub(all.len()).min(length);
        all.extend_from_slice(buffer.get(..room).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(folder: &Path, count: usize, limit: u64) -> PathBuf {
        let path = path(folder, 0);
        let mut writer = Writer::open(path.clone(), limit).unwrap();
        let mut rest = Vec::new();
        for number in 0..count {
            let now = Timestamp::from_second(i64::try_from(number).unwrap()).unwrap();
            writer.write(&entries(
                &mut rest,
                format!("line {number}\n").as_bytes(),
                Stream::Out,
                now,
                false,
            ));
        }
        path
    }

    async fn read_all(path: PathBuf, ask: Ask) -> String {
        let (tx, mut rx) = mpsc::channel(4096);
        send(path, ask, None, tx).await;
        let mut all = Vec::new();
        while let Some(line) = rx.recv().await {
            all.extend_from_slice(&line);
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn a_log_is_read_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = lines(folder.path(), 5, FILE_BYTES);
        let ask = |ask: Ask| read_all(path.clone(), ask);
        assert_eq!(
            ask(Ask {
                tail: Some(2),
                ..Ask::default()
            })
            .await,
            "line 3\nline 4\n"
        );
        assert_eq!(
            ask(Ask {
                tail: Some(0),
                ..Ask::default()
            })
            .await,
            ""
        );
        let since = Some(Timestamp::from_second(4).unwrap());
        let timed = ask(Ask {
            since,
            timestamps: true,
            ..Ask::default()
        })
        .await;
        assert_eq!(timed, "1970-01-01T00:00:04.000000000Z line 4\n");
        assert_eq!(
            ask(Ask {
                limit: Some(9),
                ..Ask::default()
            })
            .await,
            "line 0\nli"
        );
    }

    #[tokio::test]
    async fn rotation_bounds_a_log_and_readers_cross_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = lines(folder.path(), 100, 1000);
        let sizes: Vec<u64> = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), FILES as usize);
        assert!(sizes.iter().all(|size| *size <= 1000));
        let all = read_all(path, Ask::default()).await;
        let numbers: Vec<usize> = all.lines().map(|line| line[5..].parse().unwrap()).collect();
        assert_eq!(numbers.last(), Some(&99));
        assert!(
            numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "no gap between files"
        );
    }

    #[test]
    fn long_lines_are_cut_and_an_unfinished_one_is_kept() {
        let mut rest = Vec::new();
        let now = Timestamp::UNIX_EPOCH;
        let long = vec![b'x'; LINE_BYTES + 3];
        let out = entries(&mut rest, &long, Stream::Error, now, false);
        assert!(out.starts_with(b"1970-01-01T00:00:00.000000000Z stderr P xxx"));
        assert_eq!(rest, b"xxx");
        assert!(entries(&mut rest, b"\n", Stream::Error, now, false).ends_with(b"F xxx\n"));
        assert!(entries(&mut rest, b"end", Stream::Out, now, false).is_empty());
        assert!(entries(&mut rest, b"", Stream::Out, now, true).ends_with(b"P end\n"));
    }

    #[tokio::test]
    async fn a_followed_log_ends_with_its_container() {
        let folder = tempfile::tempdir().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let output = capture(path(folder.path(), 0), vec![(Stream::Out, reader.into())]).unwrap();
        let (tx, mut rx) = mpsc::channel(8);
        let follow = Ask {
            follow: true,
            ..Ask::default()
        };
        let sent = tokio::spawn(send(path(folder.path(), 0), follow, Some(Arc::clone(&output)), tx));
        let mut writer = File::from(OwnedFd::from(writer));
        writer.write_all(b"one\n").unwrap();
        assert_eq!(rx.recv().await.as_deref(), Some(&b"one\n"[..]));
        writer.write_all(b"two\n").unwrap();
        assert_eq!(rx.recv().await.as_deref(), Some(&b"two\n"[..]));
        drop(writer);
        assert_eq!(rx.recv().await, None);
        sent.await.unwrap();
        output.complete().await;
    }
}
