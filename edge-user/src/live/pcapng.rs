//! Sampled drops as a pcapng file (draft-ietf-opsawg-pcapng) that Wireshark opens: the reason as the packet's comment.
//!
//! Times are those of the kernel's tick at which the sample was taken, so as fine as a tick. Interfaces are described
//! when their first packet comes, and closed with what is known of lost samples.

use std::{
    borrow::Cow,
    collections::HashMap,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use edge_common::abi::{Event, Reason, SNAPSHOT_BYTES};
use pcap_file::{
    DataLink, Endianness, PcapError,
    pcapng::{
        Block, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
            section_header::{SectionHeaderBlock, SectionHeaderOption},
        },
    },
};

/// Nanoseconds: `if_tsresol` is a negative power of ten.
const RESOLUTION: u8 = 9;

/// Converts ticks of one capture to the wall clock, without the jumps of setting it.
#[derive(Debug, Clone, Copy)]
pub struct Timeline {
    /// A tick …
    pub tick: u64,
    /// … the same moment on the wall clock …
    pub wall: SystemTime,
    /// … and how long a tick is.
    pub tick_length: Duration,
}

impl Timeline {
    /// Time since the epoch at `tick`.
    fn at(&self, tick: u64) -> Duration {
        let nanos =
            |ticks: u64| Duration::from_nanos((self.tick_length.as_nanos() as u64).saturating_mul(ticks));
        let wall = self
            .wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        match tick.checked_sub(self.tick) {
            Some(later) => wall.saturating_add(nanos(later)),
            None => wall.saturating_sub(nanos(self.tick - tick)),
        }
    }
}

/// A file being written.
pub struct Recording<W: Write> {
    writer: PcapNgWriter<W>,
    timeline: Timeline,
    /// By index of the interface in the kernel.
    interfaces: HashMap<u32, u32>,
    packets: u64,
}

impl<W: Write> Recording<W> {
    /// Writes the file's head.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(to: W, timeline: Timeline) -> io::Result<Self> {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let section = SectionHeaderBlock {
            endianness: Endianness::Little,
            options: vec![
                SectionHeaderOption::OS(Cow::Owned(format!("Linux {release}"))),
                SectionHeaderOption::UserApplication(Cow::Borrowed(concat!(
                    "breakwater ",
                    env!("CARGO_PKG_VERSION")
                ))),
            ],
            ..SectionHeaderBlock::default()
        };
        let writer = PcapNgWriter::with_section_header(to, section).map_err(failed)?;
        Ok(Self {
            writer,
            timeline,
            interfaces: HashMap::new(),
            packets: 0,
        })
    }

    /// Adds a sample. `interface` and `service` are names by the numbers in it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add(
        &mut self,
        event: &Event,
        interface: impl FnOnce(u32) -> String,
        service: &str,
    ) -> io::Result<()> {
        let id = match self.interfaces.get(&event.ifindex) {
            Some(id) => *id,
            None => self.describe(event.ifindex, interface(event.ifindex))?,
        };
        let captured = usize::from(event.captured)
            .min(SNAPSHOT_BYTES)
            .min(event.len as usize);
        let block = EnhancedPacketBlock {
            interface_id: id,
            timestamp: self.timeline.at(event.tick),
            original_len: event.len,
            data: Cow::Borrowed(event.snapshot.get(..captured).unwrap_or_default()),
            options: vec![EnhancedPacketOption::Comment(Cow::Owned(comment(event, service)))],
        };
        self.write(&Block::EnhancedPacket(block))?;
        self.packets += 1;
        Ok(())
    }

    /// Packets added so far.
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Hands over what is buffered.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.get_mut().flush()
    }

    /// Writes the file's end: for each interface when the capture ended, and how many dropped packets are missing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn end(mut self, tick: u64, missing: u64) -> io::Result<()> {
        // The crate writes a 64-bit number where the format has its upper half first, whatever the byte order.
        let timestamp = (self.timeline.at(tick).as_nanos() as u64).rotate_left(32);
        let mut ids: Vec<u32> = self.interfaces.values().copied().collect();
        ids.sort_unstable();
        for interface_id in ids {
            self.write(&Block::InterfaceStatistics(InterfaceStatisticsBlock {
                interface_id,
                timestamp,
                options: vec![
                    InterfaceStatisticsOption::Comment(Cow::Owned(format!(
                        "{missing} dropped packets of all interfaces were not sampled"
                    ))),
                    InterfaceStatisticsOption::IsbEndTime(timestamp),
                ],
            }))?;
        }
        self.flush()
    }

    fn describe(&mut self, index: u32, name: String) -> io::Result<u32> {
        let id = self.interfaces.len() as u32;
        self.write(&Block::InterfaceDescription(InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: SNAPSHOT_BYTES as u32,
            options: vec![
                InterfaceDescriptionOption::IfName(Cow::Owned(name)),
                InterfaceDescriptionOption::IfTsResol(RESOLUTION),
            ],
        }))?;
        self.interfaces.insert(index, id);
        Ok(id)
    }

    fn write(&mut self, block: &Block<'_>) -> io::Result<()> {
        self.writer.write_block(block).map(|_| ()).map_err(failed)
    }
}

/// The packet's comment: the reason's name first, so that a display filter finds it.
fn comment(event: &Event, service: &str) -> String {
    let (name, text) = Reason::from_index(event.reason).map_or(
        ("unknown", "a reason that this version does not know"),
        |reason| (reason.name(), reason.text()),
    );
    let only = if event.observed != 0 {
        " (only observed: it passed)"
    } else {
        ""
    };
    format!("{name}: {text}{only}; service {service}")
}

fn failed(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use edge_common::abi::Addr;
    use pcap_file::pcapng::PcapNgReader;

    use super::*;

    fn event(ifindex: u32, tick: u64, reason: u8, observed: u8) -> Event {
        let mut snapshot = [0; SNAPSHOT_BYTES];
        snapshot[0] = 0xaa;
        snapshot[59] = 0xbb;
        Event {
            tick,
            src: Addr::from(IpAddr::from([192, 0, 2, 1])),
            dst: Addr::UNSPECIFIED,
            sport: 1,
            dport: 2,
            len: 1400,
            ifindex,
            service: 2,
            reason,
            protocol: 6,
            captured: 60,
            observed,
            reserved: [0; 5],
            snapshot,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let timeline = Timeline {
            tick: 1000,
            wall: SystemTime::UNIX_EPOCH + Duration::from_hours(500_000),
            tick_length: Duration::from_millis(4),
        };
        let mut bytes = Vec::new();
        let mut recording = Recording::begin(&mut bytes, timeline).expect("written");
        let name = |index| format!("eth{index}");
        for sample in [
            event(3, 1010, Reason::Banned as u8, 0),
            event(7, 990, Reason::SourcePackets as u8, 1),
            event(3, 1011, 200, 0),
        ] {
            recording.add(&sample, name, "web").expect("written");
        }
        assert_eq!(recording.packets(), 3);
        recording.end(1020, 17).expect("written");

        let mut reader = PcapNgReader::new(bytes.as_slice()).expect("a section header");
        let (mut packets, mut described, mut ends) = (Vec::new(), Vec::new(), 0);
        while let Some(block) = reader.next_block() {
            match block.expect("a block").into_owned() {
                Block::EnhancedPacket(packet) => packets.push(packet),
                Block::InterfaceDescription(interface) => described.push(interface),
                Block::InterfaceStatistics(end) => {
                    ends += 1;
                    assert!(format!("{end:?}").contains("17 dropped packets"));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((packets.len(), described.len(), ends), (3, 2, 2));
        assert!(
            described[1]
                .options
                .contains(&InterfaceDescriptionOption::IfName("eth7".into()))
        );
        let first = &packets[0];
        assert_eq!(
            first.timestamp,
            Duration::from_hours(500_000) + Duration::from_millis(40)
        );
        assert_eq!(
            (first.original_len, first.data.len(), first.data[59]),
            (1400, 60, 0xbb)
        );
        assert_eq!(
            first.options,
            [EnhancedPacketOption::Comment(
                "banned: the source is banned; service web".into()
            )]
        );
        assert_eq!(
            (packets[1].interface_id, packets[1].timestamp),
            (1, Duration::from_hours(500_000) - Duration::from_millis(40))
        );
        assert!(format!("{:?}", packets[1].options).contains("only observed"));
        assert!(format!("{:?}", packets[2].options).contains("unknown"));
    }
}
