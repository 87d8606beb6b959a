//! Files: searching, downloading, uploading (report 9.4: SuchManager, DownloadManager, UploadManager).
//!
//! The three managers are one [`Manager`] towards the dispatcher, because a search reply tells the place in the upload
//! queue. [`FileManagers`] hands each kind of message to the one whose it is:
//!
//! - [`search`]: own searches with their timeouts and caps; answers to others' searches from the library.
//! - [`download`]: the list; per download one state machine (`task`: what the user wants, and its file; `fetch`: finding
//!   sources and fetching) over small parts: `plan` (which ranges), `transfer` (one order), `window` (how much ahead),
//!   `disk` (verified, written, recorded), `source`.
//! - [`upload`]: offers, slots and the queue; `client` is one downloader and the stream of pieces to it.

pub mod download;
mod meter;
pub mod search;
mod throttle;
pub mod upload;

use bbh_types::{Instant, NodeId};
use bbh_wire::Message;

use self::download::DownloadManager;
use self::search::SearchManager;
use self::upload::{UploadManager, UploadStatus};
use crate::api::{Command, DownloadStatus, LibraryAnswer, StorageAnswer};
use crate::messaging::{Context, Manager, Received};

/// The managers of searches, downloads and uploads.
#[derive(Debug, Default)]
pub struct FileManagers {
    search: SearchManager,
    downloads: DownloadManager,
    uploads: UploadManager,
}

impl FileManagers {
    /// Nothing searched, nothing on the list, nobody in the queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// The downloads, in the list's order.
    pub fn downloads(&self) -> Vec<DownloadStatus> {
        self.downloads.list()
    }

    /// One download.
    pub fn download(&self, content: &bbh_types::ContentId) -> Option<DownloadStatus> {
        self.downloads.get(content)
    }

    /// The uploads that run, then those that wait in the queue's order.
    pub fn uploads(&self) -> Vec<UploadStatus> {
        self.uploads.list()
    }
}

impl Manager for FileManagers {
    fn kinds(&self) -> &'static [u8] {
        &[1, 2, 3, 4, 5, 6, 7, 8, 9]
    }

    fn handle_message(&mut self, cx: &mut Context<'_>, mut received: Received) {
        let source = received.source;
        // Its place in `received` is taken by something small: the three only need who sent it and how it came.
        let nothing = Message::RoutingResync(bbh_wire::message::RoutingResync {});
        match std::mem::replace(&mut received.message, nothing) {
            Message::SearchRequest(request) => self.search.on_request(cx, source, request),
            Message::SearchReply(reply) => self.search.on_reply(cx, &received, reply),
            Message::DownloadInquiry(inquiry) => self.uploads.on_inquiry(cx, &received, inquiry),
            Message::DownloadReply(reply) => self.downloads.on_reply(cx, &received, &reply),
            Message::DownloadOrder(order) => self.uploads.on_order(cx, source, order),
            Message::DownloadCancel(cancel) if cancel.by_downloader => {
                self.uploads.on_cancel(cx, source, cancel.transfer);
            }
            Message::DownloadCancel(cancel) => self.downloads.on_cancel(cx, source, &cancel),
            Message::UploadStart(start) => self.downloads.on_start(cx, source, &start),
            Message::UploadData(data) => self.downloads.on_data(cx, &received, &data),
            Message::UploadAck(ack) => self.uploads.on_ack(cx, source, &ack),
            _ => {}
        }
    }

    fn handle_command(&mut self, cx: &mut Context<'_>, command: &Command) {
        match command {
            Command::Search { search, query, timeout } => self.search.start(cx, *search, query.clone(), *timeout),
            Command::CancelSearch { search } => self.search.cancel(cx, *search),
            Command::Download { content, name, size, queue_only } => {
                self.downloads.add(cx, *content, name.as_deref(), *size, *queue_only);
            }
            Command::Start(content) | Command::Resume(content) => self.downloads.start(cx, *content),
            Command::Pause(content) => self.downloads.pause(cx, *content),
            Command::Cancel(content) => self.downloads.cancel(cx, *content),
            Command::Restore(record) => self.downloads.restore(cx, record),
            Command::Configure(_) => self.uploads.on_configure(cx),
            Command::Stop => self.downloads.stop(cx),
            Command::ListDevices { .. } | Command::Ping { .. } => {}
        }
    }

    fn handle_library(&mut self, cx: &mut Context<'_>, answer: &LibraryAnswer) {
        match answer {
            LibraryAnswer::Found { token, files } => {
                if let Some(asker) = self.search.asker(*token) {
                    let place = self.uploads.queue_position(cx.settings.upload_slots, asker);
                    self.search.on_found(cx, *token, files, place);
                }
            }
            LibraryAnswer::Held { token, file } => self.uploads.on_held(cx, *token, file.as_ref()),
            LibraryAnswer::Slice { token, result } => self.uploads.on_slice(cx, *token, result),
        }
    }

    fn handle_storage(&mut self, cx: &mut Context<'_>, answer: &StorageAnswer) {
        self.downloads.on_storage(cx, answer);
    }

    fn handle_unreachable(&mut self, cx: &mut Context<'_>, node: NodeId) {
        self.uploads.on_unreachable(cx, node);
        self.downloads.on_unreachable(cx, node);
    }

    fn handle_network_changed(&mut self, cx: &mut Context<'_>) {
        self.search.on_network_changed(cx);
        self.downloads.on_network_changed(cx);
    }

    fn handle_room(&mut self, cx: &mut Context<'_>, to: NodeId) {
        self.uploads.pump(cx, to);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        self.search.on_timeout(cx);
        self.downloads.on_timeout(cx);
        self.uploads.on_timeout(cx);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.search.poll_timeout(), self.downloads.poll_timeout(), self.uploads.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }
}
