//! Memory that only starting needed, given back to the kernel.
//!
//! In: nothing. Out: less resident memory. Starting runs much code that never runs again (arguments, settings, the first
//! certificate and configuration), and for each page of it the kernel maps the pages around: when a sidecar is ready, nearly the
//! whole program is resident. It never touches what was written to: only code, which is read from the program's file again
//! where it is still needed (mostly from the page cache, a minor fault each).

use std::ffi::c_void;
use std::fs;
use std::io;
use std::ops::Range;

use rustix::mm::{Advice, madvise};

/// Gives back free heap and the mapping of the program's code. Returns the bytes of code that were mapped.
pub fn give_back() -> io::Result<usize> {
    #[expect(unsafe_code, reason = "malloc_trim takes any number and only returns free pages")]
    // SAFETY: no pointer is passed; the allocator locks its arenas itself.
    unsafe {
        libc::malloc_trim(0);
    }
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut bytes = 0;
    for code in code_of(&maps, &program.to_string_lossy()) {
        #[expect(unsafe_code, reason = "advice on a range of addresses")]
        // SAFETY: the range is the executable, private, never written mapping of our own file, as the kernel names it: what is
        // dropped is read from the file again when it is next used.
        unsafe {
            madvise(code.start as *mut c_void, code.len(), Advice::LinuxDontNeed)?;
        }
        bytes += code.len();
    }
    Ok(bytes)
}

/// The address ranges of `maps` (proc(5), `/proc/<pid>/maps`) that hold the code of `program` and cannot be written.
fn code_of<'a>(maps: &'a str, program: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    maps.lines().filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace();
        let (range, mode) = (fields.next()?, fields.next()?);
        let path = line.find('/').and_then(|at| line.get(at..))?;
        let (start, end) = range.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        (mode == "r-xp" && path == program).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_programs_own_code_is_given_back() {
        let maps = "\
00400000-00600000 r--p 00000000 fe:00 11 /usr/local/bin/mizzen-proxy
00600000-00b00000 r-xp 00200000 fe:00 11 /usr/local/bin/mizzen-proxy
00b00000-00b10000 rw-p 00700000 fe:00 11 /usr/local/bin/mizzen-proxy
00c00000-00d00000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000100000 r-xp 00000000 fe:00 12 /lib/libc.so.6
7f0000200000-7f0000300000 r-xp 00000000 00:00 0
";
        let mut code = code_of(maps, "/usr/local/bin/mizzen-proxy");
        assert_eq!((code.next(), code.next()), (Some(0x60_0000..0xb0_0000), None));
    }

    #[test]
    fn the_program_goes_on_after_it_gave_back_its_code() {
        let bytes = give_back().unwrap();
        assert!(bytes > 100_000, "{bytes} bytes of code");
        assert_eq!(code_of("", "x").count(), 0);
    }
}
