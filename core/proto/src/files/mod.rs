//! Files: searching, downloading, uploading (report 9.4: SuchManager, DownloadManager, UploadManager).
