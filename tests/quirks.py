"""What each cloud is said to demand, refuse and get wrong; enforced by tests.quirkserver.

Written from the providers' pages and other tools' issues, and not from adsmig's own table, which
it is to be held against.
"""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Quirks:
    """One provider."""

    native: str
    """The domain that users know, behind the bucket."""
    endpoint: str
    """The host that speaks S3; the native domain speaks something else where it is another."""
    region: str
    """The only one in a V4 credential scope that is taken; '': any."""
    virtual_only: str = ""
    """The error code for a bucket in the path."""
    path_only: bool = False
    v1_only: bool = False
    """Asked for ListObjectsV2 it says that a listing goes on, gives no token, and takes none."""
    next_marker: bool = True
    """Version 1 names the next marker even without a delimiter."""
    url_encoding: bool = True
    etag: str = "md5"
    """``aws``; ``md5``: the ETag of a multipart upload is something else; ``opaque``: all are."""
    capitals: bool = False
    """ETags are in capitals."""
    min_part: int = 5 * MIB
    exact_part: int = 0
    max_put: int = 5 << 30
    max_copy: int = 5 << 30
    deletes_many: bool = True
    """DeleteObjects, with a Content-MD5."""
    leading_slash: bool = True
    max_meta: int = 0
    redirects: bool = False
    """A wrong region is answered with 307."""
    server: str = "cloud"

    # What happens now and then, or in a variant of the test's.
    slow_down_every: int = 23
    """One of this many requests is answered with 503 SlowDown; 0: none."""
    page: int = 4
    """Keys a page, at most."""
    errors_in_200: bool = True
    """The first CompleteMultipartUpload and CopyObject are answered with 200 and an error."""
    ignores_marker: bool = False
    unsorted: bool = False


QUIRKS = {
    "s3": Quirks(
        native="s3.cn-north-1.amazonaws.com.cn", endpoint="s3.cn-north-1.amazonaws.com.cn",
        region="cn-north-1", etag="aws", server="AmazonS3",
    ),
    "minio": Quirks(
        native="minio.corp:9000", endpoint="minio.corp:9000", region="us-east-1", etag="aws",
        path_only=True,
    ),
    "oss": Quirks(
        native="oss-cn-beijing.aliyuncs.com", endpoint="s3.oss-cn-beijing.aliyuncs.com",
        region="cn-beijing", virtual_only="SecondLevelDomainForbidden", min_part=100 << 10,
        server="AliyunOSS", capitals=True,
    ),
    "cos": Quirks(
        native="ap-beijing.myqcloud.com", endpoint="cos.ap-beijing.myqcloud.com",
        region="ap-beijing", virtual_only="PathStyleDomainForbidden", min_part=1 * MIB,
        server="tencent-cos",
    ),
    "bos": Quirks(
        native="bj.bcebos.com", endpoint="s3.bj.bcebos.com", region="bj", v1_only=True,
        min_part=100 << 10, leading_slash=False, max_meta=2048, server="BceBos",
    ),
    "ks3": Quirks(
        native="ks3-cn-beijing.ksyuncs.com", endpoint="ks3-cn-beijing.ksyuncs.com",
        region="BEIJING", virtual_only="AccessDenied", v1_only=True, redirects=True, server="KS3",
    ),
    "obs": Quirks(
        native="obs.cn-north-4.myhuaweicloud.com", endpoint="obs.cn-north-4.myhuaweicloud.com",
        region="cn-north-4", virtual_only="VirtualHostDomainRequired", next_marker=False,
        min_part=100 << 10, server="OBS",
    ),
    "qiniu": Quirks(
        native="s3.cn-east-1.qiniucs.com", endpoint="s3.cn-east-1.qiniucs.com",
        region="cn-east-1", url_encoding=False, server="Kodo",
    ),
    "ufile": Quirks(
        native="cn-bj.ufileos.com", endpoint="s3-cn-bj.ufileos.com", region="", etag="opaque",
        min_part=8 * MIB, exact_part=8 * MIB, max_put=1 << 30, max_copy=100 * MIB,
        deletes_many=False, server="ufile",
    ),
}  # fmt: skip
"""One for each NAME of an object store."""
